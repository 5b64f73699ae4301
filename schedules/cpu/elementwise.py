"""Requantize a tensor or add two: ``clip(sum(((q - z) * b + 2**(c-1)) >> c) + zero_point)`` on any x86-64."""

from dataclasses import dataclass

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import BLOCK, Format
from schedules.cpu.codes import load_codes, store_codes
from schedules.cpu.intrin import LANES, argument, flat, load, scratch, store, task_loop
from schedules.cpu.requantize import fast_operand, operand_term, sum_of_terms
from schedules.target import CpuTarget
from schedules.workload import Elementwise

NAME = "elementwise"
WORTH_A_TASK = 1024  # vectors; less takes no longer than to wake a thread
STEM_CHANNELS = 4


@dataclass(frozen=True)
class Config:
    tasks: int  # equal shares of the vectors


def formats(workload, target: CpuTarget) -> tuple[Format, str] | None:
    """Blocks of 16 channels, unless most of a block would be empty."""
    if not isinstance(workload, Elementwise):
        return None
    first = workload.operands[0].format
    packed = workload.out.packed or any(operand.format.packed for operand in workload.operands)
    layout = "NCHW" if workload.dims[1] <= STEM_CHANNELS and not packed else "NCHW16c"
    return Format(first.code, layout, first.packed), layout


def check(config: Config, workload: Elementwise, target: CpuTarget) -> str | None:
    used = [operand.format for operand in workload.operands] + [workload.out]
    if len({format.layout for format in used}) > 1:
        return "operands and result must have one layout"
    if workload.out.layout == "NCHW" and any(format.packed for format in used):
        return "packed codes only in NCHW16c"
    if not 1 <= config.tasks <= max(1, _vectors(workload)[0]):
        return "more tasks than vectors"
    return None


def space(workload: Elementwise, target: CpuTarget, threads: int) -> list[Config]:
    most = max(1, _vectors(workload)[0] // WORTH_A_TASK)
    return [Config(tasks) for tasks in sorted({1, min(threads, most), min(4 * threads, most)})]


def default(workload: Elementwise, target: CpuTarget, threads: int) -> Config:
    return Config(max(1, min(threads, _vectors(workload)[0] // WORTH_A_TASK)))


def constants(config: Config, workload: Elementwise) -> list:
    return []


def _vectors(workload: Elementwise) -> tuple[int, int]:
    """Full vectors of 16 codes, and codes left over."""
    n, c, h, w = workload.dims
    if workload.out.layout == "NCHW":
        return divmod(n * c * h * w, LANES)
    return n * -(-c // BLOCK) * h * w, 0


def build(config: Config, workload: Elementwise, target: CpuTarget):
    """PrimFunc ``(*operands, out)``."""
    vectors, left = _vectors(workload)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        arguments = [
            argument(f"operand{number}", operand.format.shape(workload.dims), operand.format.dtype)
            for number, operand in enumerate(workload.operands)
        ]
        arguments.append(argument("out", workload.out.shape(workload.dims), workload.out.dtype))
        *operands, out = (flat(buffer) for buffer in arguments)
        share, extra = divmod(vectors, config.tasks)
        with task_loop(config.tasks) as task, T.serial(share) as index:
            _vector(workload, operands, out, task * share + index)
        if extra:
            with T.serial(extra) as index:
                _vector(workload, operands, out, config.tasks * share + index)
        if left:
            _tail(workload, operands, out, vectors * LANES, left)
    return builder.get()


def _vector(workload: Elementwise, operands: list, out, number):
    """The 16 codes with this number."""
    fast = all(fast_operand(operand) for operand in workload.operands)
    terms = [
        operand_term(load_codes(buffer, number, operand.format), operand, fast)
        for buffer, operand in zip(operands, workload.operands, strict=True)
    ]
    value = T.bind(sum_of_terms(terms, workload.zero_point, workload.lo, workload.hi, fast))
    store_codes(out, number, value, workload.out, workload.lo, workload.hi)


def _tail(workload: Elementwise, operands: list, out, first: int, count: int):
    """The last codes, fewer than a vector, by way of small buffers."""
    copies = []
    for buffer in operands:
        copy = scratch(LANES, buffer.dtype)
        for lane in range(count):
            store(copy, lane, load(buffer, first + lane, buffer.dtype))
        copies.append(copy)
    result = scratch(LANES, out.dtype)
    _vector(workload, copies, result, 0)
    for lane in range(count):
        store(out, first + lane, load(result, lane, out.dtype))
