"""Which schedule takes a workload: the first of an explicit list that can."""

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from schedules.cpu import conv2d_direct, dense, elementwise, pool, portable
from schedules.target import CpuTarget
from schedules.workload import Concat, Elementwise, MaxPool2d, Reformat

LAYOUT = "NCHW16c"
SCHEDULES = (conv2d_direct, dense, elementwise, pool)  # the first that takes a workload gets it


@dataclass(frozen=True)
class Choice:
    """A schedule module, its config, and the workload in the layouts the schedule works on."""

    schedule: ModuleType
    config: Any
    workload: Any

    @property
    def name(self) -> str:
        return self.schedule.NAME


def with_layouts(workload, x_layout: str, out_layout: str):
    """The workload with its inputs and outputs in these layouts; a residual lies as the output does."""
    if isinstance(workload, Elementwise):
        operands = tuple(replace(o, format=replace(o.format, layout=x_layout)) for o in workload.operands)
        return replace(workload, operands=operands, out=replace(workload.out, layout=out_layout))
    changed = replace(workload, x=replace(workload.x, layout=x_layout))
    if hasattr(workload, "out"):
        return replace(changed, out=replace(workload.out, layout=out_layout))
    epilogue = getattr(workload, "epilogue", None)
    if epilogue is not None:
        residual = epilogue.residual
        if residual is not None:
            residual = replace(residual, format=replace(residual.format, layout=out_layout))
        changed = replace(
            changed, epilogue=replace(epilogue, out=replace(epilogue.out, layout=out_layout), residual=residual)
        )
    return changed


def x_layout(workload) -> str:
    """Layout of a workload's inputs."""
    return workload.operands[0].format.layout if isinstance(workload, Elementwise) else workload.x.layout


def io_layouts(workload) -> tuple[str, str]:
    """Layouts of a workload's inputs and of its output; a layer must have its epilogue."""
    if isinstance(workload, MaxPool2d):
        return workload.x.layout, workload.x.layout
    return x_layout(workload), (getattr(workload, "epilogue", None) or workload).out.layout


def choose(workload, target: CpuTarget, threads: int) -> Choice:
    """The schedule that takes the workload, in the layouts it wants; the fallback reads its inputs as they lie."""
    for schedule in SCHEDULES:
        wanted = schedule.formats(workload, target)
        if wanted is None:
            continue
        laid = with_layouts(workload, wanted[0].layout, wanted[1])
        config = schedule.default(laid, target, threads)
        if schedule.check(config, laid, target) is None:
            return Choice(schedule, config, laid)
    lies = x_layout(workload)
    # one layout for the inputs and the output of these
    keeps = isinstance(workload, (MaxPool2d, Concat, Elementwise))
    laid = workload if isinstance(workload, Reformat) else with_layouts(workload, lies, lies if keeps else LAYOUT)
    return Choice(portable, portable.default(laid, target, threads), laid)
