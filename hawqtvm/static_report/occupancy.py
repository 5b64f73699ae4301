"""Blocks of a kernel that an SM holds at once, as NVIDIA's occupancy calculator counts from sm_75 on."""

from dataclasses import dataclass

from schedules.cuda.conv2d_space import LANES, SM_REGISTERS
from schedules.target import CudaTarget

REGISTER_UNIT = 8  # of a thread
WARP_UNIT = 4  # registers are dealt to the SM's four schedulers
SHARED_UNIT = 256  # bytes


@dataclass(frozen=True)
class Occupancy:
    """``blocks`` of an SM; ``limit``: what allows no more, "blocks", "threads", "registers" or "shared memory"."""

    blocks: int
    limit: str


def occupancy(target: CudaTarget, threads: int, registers: int, shared: int) -> Occupancy:
    """Of blocks of ``threads``, ``registers`` a thread and ``shared`` bytes."""
    warps = -(-threads // LANES)
    held = SM_REGISTERS // (_round(registers, REGISTER_UNIT) * LANES) // WARP_UNIT * WARP_UNIT
    reserved = target.shared_sm - target.shared_block  # for the system, of every block
    bytes_held = _round(shared + reserved, SHARED_UNIT)
    limits = {
        "blocks": target.blocks_sm,
        "threads": target.threads_sm // (warps * LANES),
        "registers": held // warps,
    }
    if bytes_held:
        limits["shared memory"] = target.shared_sm // bytes_held
    limit = min(limits, key=limits.get)
    return Occupancy(limits[limit], limit)


def _round(number: int, step: int) -> int:
    return -(-number // step) * step
