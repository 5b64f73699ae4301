"""One kernel: lowered, compiled, and what its binary says."""

from dataclasses import asdict, dataclass

from hawqtvm.emulator.lowered import Launch, lower
from hawqtvm.errors import BadInput
from hawqtvm.static_report import ptxas, sass
from hawqtvm.static_report.bounds import bound
from hawqtvm.static_report.occupancy import occupancy
from hawqtvm.static_report.work import Work, work
from schedules.cuda import nvcc
from schedules.dispatch import Choice, choose
from schedules.target import CudaTarget


@dataclass(frozen=True)
class Kernel:
    """``text``: CUDA."""

    choice: Choice
    text: str
    launch: Launch
    work: Work

    @property
    def blocks(self) -> int:
        x, y, z = self.launch.grid
        return x * y * z

    @property
    def threads(self) -> int:
        """Of a block."""
        x, y, z = self.launch.block
        return x * y * z


@dataclass(frozen=True)
class Binary:
    """``sass``: None where nothing disassembles it."""

    resources: ptxas.Resources
    sass: sass.Sass | None


def lowered(workload, target: CudaTarget) -> Kernel:
    """The workload by the schedule that deploy takes without measurements; BadInput where that launches twice."""
    choice = choose(workload, target, 1)
    function = choice.schedule.build(choice.config, choice.workload, target)
    made = lower(function, target.tvm)
    if len(made.launches) != 1:
        raise BadInput(f"{choice.name} launches {len(made.launches)} kernels for {workload}: the report knows one")
    (launch,) = made.launches
    x, y, z = launch.grid
    return Kernel(choice, made.source, launch, work(choice, function, x * y * z, target))


def compiled(text: str, target: CudaTarget) -> Binary:
    """The only kernel of the CUDA text.  BadInput as :func:`nvcc.cubin`."""
    cubin, messages = nvcc.cubin_and_messages(text, target.arch, *ptxas.VERBOSE)
    text = sass.disassemble(cubin)
    return Binary(ptxas.resources(messages), text and sass.read(text))


def row(kernel: Kernel, binary: Binary, target: CudaTarget) -> dict:
    """Plain values for JSON; what only SASS tells is None without it."""
    used, code, todo = binary.resources, binary.sass, kernel.work
    shared = used.shared + kernel.launch.shared
    held = occupancy(target, kernel.threads, used.registers, shared)
    least = bound(todo, kernel.blocks, code and code.loop, target)
    return {
        "shape": shape(kernel.choice.workload),
        "schedule": kernel.choice.name,
        "config": asdict(kernel.choice.config),
        "registers": used.registers,
        "shared_bytes": shared,
        "spilled_bytes": used.spilled,
        "stack_bytes": used.stack,
        "threads": kernel.threads,
        "blocks": kernel.blocks,
        "blocks_sm": held.blocks,
        "limit": held.limit,
        "sass": code and asdict(code),
        "work": asdict(todo),
        "bound_us": least.us,
        "binds": least.binds,
        "parts_us": asdict(least),
    }


def shape(workload) -> str:
    """ "3x3/2 56x56 64->128 uint4 -> int16 +r +codes": window and stride, input, formats, residual, second output."""
    _, out_channels, *_ = workload.out_dims
    operand = workload.operands[0].format if hasattr(workload, "operands") else workload.x
    dims = getattr(workload, "x_dims", None) or getattr(workload, "dims", None)
    _, channels, height, width = dims
    kind = type(workload).__name__
    words = [f"{height}x{width}", f"{channels}->{out_channels}" if out_channels != channels else str(channels)]
    if hasattr(workload, "kernel"):
        stride = f"/{workload.strides[0]}" if workload.strides[0] > 1 else ""
        words.insert(0, "x".join(map(str, workload.kernel)) + stride)
    epilogue = getattr(workload, "epilogue", None)
    written = getattr(workload, "out", None) or (epilogue.out if epilogue else None)
    words.append(operand.code + (f"->{written.code}" if written else ""))
    if epilogue and epilogue.residual:
        words.append(f"+{epilogue.residual.format.code}")
    if epilogue and epilogue.codes:
        words.append(f"and {epilogue.codes.out.code}")
    return " ".join([kind, *words])
