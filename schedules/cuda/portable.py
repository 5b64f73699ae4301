"""The fallback on a GPU: any workload in any format, slower and equally exact.

The tensor expressions of :mod:`schedules.bodies`.  A thread makes ``CODES`` neighbouring channels of a pixel, or one
stored element in NCHW, with its sums in registers.
"""

from dataclasses import dataclass

import tvm
from tvm import te, tirx

from hawqtvm.qnn.formats import Format
from schedules.bodies import BODIES
from schedules.cpu.portable import constants, formats  # noqa: F401 (a part of this schedule, too)
from schedules.cuda.codes import CODES
from schedules.target import CudaTarget
from schedules.workload import MaxPool2d

NAME = "portable"
THREADS = (64, 128, 256)


@dataclass(frozen=True)
class Config:
    """``threads``: of a block."""

    threads: int = 128


def check(config: Config, workload, target: CudaTarget) -> str | None:
    if config.threads not in THREADS:
        return f"threads must be one of {THREADS}"
    epilogue = getattr(workload, "epilogue", None)
    if epilogue and epilogue.codes and "NCHW" in {out.layout for out in epilogue.outputs}:
        return "a thread makes neighbouring channels of both outputs, which NCHW does not have"
    return None


def space(workload, target: CudaTarget, threads: int) -> list[Config]:
    return [Config(count) for count in THREADS]


def default(workload, target: CudaTarget, threads: int) -> Config:
    return Config()


def build(config: Config, workload, target: CudaTarget) -> tirx.PrimFunc:
    """The workload's kernel; arguments as its docstring says."""
    function = te.create_prim_func(BODIES[type(workload)](workload))
    sch = tvm.s_tir.Schedule(function)
    outputs, sums = [], []
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        if any(sch.get(block).writes[0].source.same_as(argument) for argument in function.params):
            outputs.append(block)
        elif _reductions(sch, block):
            sums.append(block)
        else:
            sch.compute_inline(block)
    out, *second = outputs
    thread = _bind(sch, out, _thread_elements(_out_format(workload)), config.threads)
    for block in second:
        if sch.get(block).reads:
            sch.reverse_compute_at(block, thread)
        else:  # its codes are constants, whatever the first are
            _bind(sch, block, 1, config.threads)
    for block in sums:
        sch.compute_at(block, thread, preserve_unit_loops=True)
        sch.set_scope(block, 0, "local")
        loops, count = sch.get_loops(block)[2:], _reductions(sch, block)
        sch.reorder(*loops[-count:], *loops[:-count])  # a thread's channels share what they read
    return sch.mod["main"].with_attr("tirx.noalias", True)


def _reductions(sch: tvm.s_tir.Schedule, block) -> int:
    """How many of a block's axes, the last ones, it sums over."""
    return sum(str(axis.iter_type) != "0" for axis in sch.get(block).iter_vars)


def _out_format(workload) -> Format:
    if isinstance(workload, MaxPool2d):
        return workload.x
    made_by = workload if hasattr(workload, "out") else workload.epilogue
    return made_by.out if made_by else Format("int32")


def _thread_elements(out: Format) -> int:
    return 1 if out.layout == "NCHW" else CODES // out.held


def _bind(sch: tvm.s_tir.Schedule, block, elements: int, threads: int):
    """Gives each thread ``elements`` of the innermost axis; returns the loop over the threads of a block."""
    *outer, inner = sch.get_loops(block)
    chunk, _ = sch.split(inner, [None, elements])
    grid, thread = sch.split(sch.fuse(*outer, chunk), [None, threads])
    sch.bind(grid, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    return thread
