"""The least time of a kernel on a GPU: ``max(operations, bytes, instructions)``, each at the data sheet's peak."""

from dataclasses import dataclass

from hawqtvm.static_report.sass import Loop
from hawqtvm.static_report.work import Work
from schedules.cuda.conv2d_estimate import GPUS, SCHEDULERS
from schedules.target import CudaTarget

PRODUCT_OPERATIONS = 2 * 8 * 8 * 16  # of two 8-bit fragments
# 10^12 operations of 8-bit Tensor Cores a second, of sm_90 what mma reaches, half of the sheet's; 10^9 bytes of DRAM
DATA_SHEETS = {
    "sm_75": (130, 320),
    "sm_80": (624, 1555),
    "sm_86": (250, 600),
    "sm_89": (242, 300),
    "sm_90": (989, 3350),
}


@dataclass(frozen=True)
class Bound:
    """Microseconds; ``instructions`` is None for a kernel without Tensor Core instructions."""

    operations: float
    bytes: float
    instructions: float | None

    @property
    def us(self) -> float:
        return max(self._parts.values())

    @property
    def binds(self) -> str:
        """The largest part's name."""
        return max(self._parts, key=self._parts.get)

    @property
    def _parts(self) -> dict[str, float]:
        return {name: us for name, us in vars(self).items() if us is not None}


def tops(target: CudaTarget, bits: int) -> float:
    """10^12 operations a second; 4 bits double it, or where they are unpacked halve it."""
    eight, _ = DATA_SHEETS[target.arch]
    return eight * (1 if bits == 8 else 2 if target.int4 else 0.5)


def bound(work: Work, blocks: int, loop: Loop | None, target: CudaTarget) -> Bound:
    """``loop``: of the SASS, where it could be read."""
    operations = work.operations / tops(target, work.bits) / 1e6 if work.bits else 0.0
    moved = work.bytes / DATA_SHEETS[target.arch][1] / 1e3
    return Bound(operations, moved, work.products and instruction_us(work.products, blocks, loop, target))


def instruction_us(products: int, blocks: int, loop: Loop | None, target: CudaTarget) -> float:
    """The SM with most blocks makes ``ceil(blocks / SMs)`` times ``products``.

    Tensor Cores take a cycle over ``gpu.products`` of them.  Each also brings along its share of the loop's other
    instructions, of which an SM issues one a scheduler and cycle.
    """
    gpu = GPUS[target.arch]
    clock = DATA_SHEETS[target.arch][0] * 1e6 / (gpu.sms * gpu.products * PRODUCT_OPERATIONS)  # a microsecond
    cycles = 1 / gpu.products
    if loop:
        cycles = max(cycles, loop.always / loop.tensor / SCHEDULERS)
    return -(-blocks // gpu.sms) * products * cycles / clock
