"""Which schedule takes a workload: the one measured fastest, or estimated so, of an explicit list."""

from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hawqtvm.qnn.formats import Format
from schedules.cpu import conv2d_direct, dense, elementwise, pool, portable, strassen, winograd
from schedules.cuda import conv2d_direct as cuda_conv2d_direct
from schedules.cuda import dense as cuda_dense
from schedules.cuda import elementwise as cuda_elementwise
from schedules.cuda import pool as cuda_pool
from schedules.cuda import portable as cuda_portable
from schedules.plain_json import from_json
from schedules.target import CudaTarget, Target
from schedules.tuning_key import tuning_key
from schedules.workload import Concat, Elementwise, Epilogue, MaxPool2d, Reformat

if TYPE_CHECKING:
    from schedules.tuned import Tuned
    from schedules.tuning_log import Record

LAYOUT, CUDA_LAYOUT = "NCHW16c", "HWNC"
SCHEDULES = (winograd, strassen, conv2d_direct, dense, elementwise, pool)
CUDA_SCHEDULES = (cuda_conv2d_direct, cuda_dense, cuda_elementwise, cuda_pool)


@dataclass(frozen=True)
class Choice:
    """A schedule module, its config, and the workload in the layouts the schedule works on.

    ``measured``: whether the config was chosen by its time, not by an estimate.
    """

    schedule: ModuleType
    config: Any
    workload: Any
    measured: bool = False

    @property
    def name(self) -> str:
        return self.schedule.NAME


def with_layouts(workload, x_layout: str, out_layout: str):
    """The workload with its inputs and outputs in these layouts; all of a layer's epilogue lies alike."""
    if isinstance(workload, Elementwise):
        operands = tuple(replace(o, format=replace(o.format, layout=x_layout)) for o in workload.operands)
        return replace(workload, operands=operands, out=replace(workload.out, layout=out_layout))
    changed = replace(workload, x=replace(workload.x, layout=x_layout))
    if hasattr(workload, "out"):
        return replace(changed, out=replace(workload.out, layout=out_layout))
    epilogue = getattr(workload, "epilogue", None)
    if epilogue is not None:
        changed = replace(changed, epilogue=_epilogue(epilogue, out_layout))
    return changed


def _epilogue(epilogue: Epilogue, layout: str) -> Epilogue:
    def laid(fmt: Format) -> Format:
        return replace(fmt, layout=layout)

    residual, codes = epilogue.residual, epilogue.codes
    if residual is not None:
        residual = replace(residual, format=laid(residual.format))
    if codes is not None:
        codes = replace(codes, y=replace(codes.y, format=laid(codes.y.format)), out=laid(codes.out))
    return replace(epilogue, out=laid(epilogue.out), residual=residual, codes=codes)


def x_layout(workload) -> str:
    """Layout of a workload's inputs."""
    return workload.operands[0].format.layout if isinstance(workload, Elementwise) else workload.x.layout


def io_layouts(workload) -> tuple[str, str]:
    """Layouts of a workload's inputs and of its output; a layer must have its epilogue."""
    if isinstance(workload, MaxPool2d):
        return workload.x.layout, workload.x.layout
    return x_layout(workload), (getattr(workload, "epilogue", None) or workload).out.layout


def options(workload, target: Target, threads: int) -> list[Choice]:
    """Every schedule that takes the workload, with its default config, the one estimated fastest first.

    Each in the layouts it wants.  The fallback only where no other does; it reads its inputs as they lie.
    """
    on_gpu = isinstance(target, CudaTarget)
    found = []
    for schedule in CUDA_SCHEDULES if on_gpu else SCHEDULES:
        wanted = schedule.formats(workload, target)
        if wanted is None:
            continue
        laid = with_layouts(workload, wanted[0].layout, wanted[1])
        config = schedule.default(laid, target, threads)
        if schedule.check(config, laid, target) is None:
            found.append(Choice(schedule, config, laid))
    if len(found) > 1:
        found.sort(key=lambda o: o.schedule.cycles(o.config, o.workload, target, threads))
    if found:
        return found
    lies = x_layout(workload)
    # one layout for the inputs and the output of these
    keeps = isinstance(workload, (MaxPool2d, Concat, Elementwise))
    fallback, layout = (cuda_portable, CUDA_LAYOUT) if on_gpu else (portable, LAYOUT)
    laid = workload if isinstance(workload, Reformat) else with_layouts(workload, lies, lies if keeps else layout)
    return [Choice(fallback, fallback.default(laid, target, threads), laid)]


def choose(workload, target: Target, threads: int, tuned: "Tuned | None" = None) -> Choice:
    """The schedule and config measured fastest where ``tuned`` has one that still fits, else the best estimate."""
    found = options(workload, target, threads)
    for record in tuned.ranked(workload, target, threads) if tuned else ():
        for option in found:
            config = replayed(record, option, target)
            if config is not None:
                return replace(option, config=config, measured=True)
    return found[0]


def replayed(record: "Record", option: Choice, target: Target):
    """The record's config, if it was measured on the option's schedule and workload and is legal there; else None."""
    if record.schedule != option.name or record.workload != tuning_key(option.workload):
        return None
    try:
        config = from_json(option.schedule.Config, record.config)
        return config if option.schedule.check(config, option.workload, target) is None else None
    except (ValueError, ArithmeticError):  # of another version, or knobs that no one measured
        return None
