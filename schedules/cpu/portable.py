"""The fallback: any workload in any format on any processor, slower and equally exact.

The tensor expressions of :mod:`schedules.compute`, with the outer loops parallel and the width innermost where a sum
runs, so that LLVM vectorizes it.
"""

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import te, tirx

from hawqtvm.qnn.packing import pack_words
from schedules.bodies import BODIES
from schedules.target import CpuTarget

NAME = "portable"


@dataclass(frozen=True)
class Config:
    """``parallel``: give the outer loops to threads."""

    parallel: bool = True


def formats(workload, target: CpuTarget) -> tuple:
    """Takes and gives whatever there is."""
    return None


def check(config: Config, workload, target: CpuTarget) -> str | None:
    return None


def space(workload, target: CpuTarget, threads: int) -> list[Config]:
    return [Config(True), Config(False)]


def default(workload, target: CpuTarget, threads: int) -> Config:
    return Config(threads > 1)


def constants(config: Config, workload, weight, bias, b=None, c=None) -> list[np.ndarray]:
    """Weights int8, or words of eight along the input channels at 4 bits; bias, b, c as they are."""
    if workload.weight_bits == 4:
        weight = pack_words(weight, 1)
    return [a for a in (weight, bias, b, c) if a is not None]


def build(config: Config, workload, target: CpuTarget) -> tirx.PrimFunc:
    """The workload's kernel; arguments as its docstring says."""
    sch = tvm.s_tir.Schedule(te.create_prim_func(BODIES[type(workload)](workload)))
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        loops = sch.get_loops(block)
        kinds = [str(sch.get(block).iter_vars[i].iter_type) for i in range(len(loops))]
        reduction = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != "0"]
        spatial = [loop for loop in loops if loop not in reduction]
        if reduction and len(spatial) == 4:
            sch.reorder(*spatial[:3], *reduction, spatial[3])
        if config.parallel:
            sch.parallel(sch.fuse(*spatial[: min(2, len(spatial))]))
    return sch.mod["main"].with_attr("tirx.noalias", True)
