"""Requantize a tensor or add two: ``clip(sum(((q - z) * b + 2**(c-1)) >> c) + zero_point)``, HWNC in and out.

All tensors have their codes in one order, so a thread makes the codes of one chunk, whichever it is.
"""

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import Format
from schedules import compute
from schedules.cuda.codes import arguments, chunk_sizes, each, load, store
from schedules.target import CudaTarget
from schedules.workload import Elementwise

NAME = "elementwise"
THREADS = (128, 256, 512)


@dataclass(frozen=True)
class Config:
    """``codes``: of a thread.  ``threads``: of a block."""

    codes: int
    threads: int


def formats(workload, target: CudaTarget) -> tuple[Format, str] | None:
    if not isinstance(workload, Elementwise):
        return None
    first = workload.operands[0].format
    return Format(first.code, "HWNC", first.packed), "HWNC"


def check(config: Config, workload: Elementwise, target: CudaTarget) -> str | None:
    if any(format.layout != "HWNC" for format in _formats(workload)):
        return "operands and result must be HWNC"
    return None if config in space(workload, target, 1) else "no such config"


def space(workload: Elementwise, target: CudaTarget, threads: int) -> list[Config]:
    return [Config(codes, count) for codes in chunk_sizes(_formats(workload)) for count in THREADS]


def default(workload: Elementwise, target: CudaTarget, threads: int) -> Config:
    return space(workload, target, threads)[0]


def constants(config: Config, workload: Elementwise) -> list:
    return []


def _formats(workload: Elementwise) -> list[Format]:
    return [operand.format for operand in workload.operands] + [workload.out]


def build(config: Config, workload: Elementwise, target: CudaTarget) -> tirx.PrimFunc:
    """PrimFunc ``(*operands, out)``."""
    out_format = workload.out
    chunks = math.prod(out_format.shape(workload.dims)) * out_format.held // config.codes
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        named = {f"x{i}": operand.format for i, operand in enumerate(workload.operands)} | {"out": out_format}
        *operands, out = arguments(named, [workload.dims] * len(named))
        with each(chunks, config.threads) as chunk:
            totals = [tirx.const(workload.zero_point, "int64")] * config.codes
            for buffer, operand in zip(operands, workload.operands, strict=True):
                rescale = compute.scalar_rescale(operand.b, operand.c)
                codes = load(buffer, chunk, config.codes, operand.format)
                totals = [t + rescale(q - operand.zero_point, None) for t, q in zip(totals, codes, strict=True)]
            store(out, chunk, [compute.clip(t, workload.lo, workload.hi) for t in totals], out_format)
    return builder.get()
