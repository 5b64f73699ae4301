"""Max and average pooling, HWNC in and out: a thread makes one chunk of an output pixel."""

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import Format
from schedules import compute
from schedules.cuda.codes import arguments, chunk_sizes, each, load, registers, store
from schedules.target import CudaTarget
from schedules.workload import AvgPool2d, MaxPool2d

NAME = "pool"
THREADS = (64, 128, 256)


@dataclass(frozen=True)
class Config:
    """``codes``: of a thread.  ``threads``: of a block."""

    codes: int
    threads: int


def formats(workload, target: CudaTarget) -> tuple[Format, str] | None:
    if not isinstance(workload, (MaxPool2d, AvgPool2d)):
        return None
    return Format(workload.x.code, "HWNC", workload.x.packed), "HWNC"


def check(config: Config, workload, target: CudaTarget) -> str | None:
    if {workload.x.layout, _out_format(workload).layout} != {"HWNC"}:
        return "input and output must be HWNC"
    return None if config in space(workload, target, 1) else "no such config"


def space(workload, target: CudaTarget, threads: int) -> list[Config]:
    sizes = chunk_sizes([workload.x, _out_format(workload)])
    return [Config(codes, count) for codes in sizes for count in THREADS]


def default(workload, target: CudaTarget, threads: int) -> Config:
    return space(workload, target, threads)[0]


def constants(config: Config, workload) -> list:
    return []


def _out_format(workload: MaxPool2d | AvgPool2d) -> Format:
    return workload.x if isinstance(workload, MaxPool2d) else workload.out


def build(config: Config, workload: MaxPool2d | AvgPool2d, target: CudaTarget) -> tirx.PrimFunc:
    """PrimFunc ``(x, out)``."""
    out_format = _out_format(workload)
    _, _, height, width = workload.dims
    _, _, out_height, out_width = workload.out_dims
    *_, rows, elements = workload.x.shape(workload.dims)
    chunks = rows * elements * workload.x.held // config.codes  # of a pixel
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        x, out = arguments({"x": workload.x, "out": out_format}, [workload.dims, workload.out_dims])
        with each(out_height * out_width * chunks, config.threads) as number:
            pixel, chunk = T.bind(number // chunks), T.bind(number % chunks)
            start = [
                T.bind(position * stride - before)
                for position, stride, before in zip(
                    (pixel // out_width, pixel % out_width), workload.strides, workload.padding[:2], strict=True
                )
            ]
            total = registers([tirx.const(_first(workload), "int32")] * config.codes)
            dilation = workload.dilation if isinstance(workload, MaxPool2d) else (1, 1)
            with T.serial(workload.kernel[0]) as i, T.serial(workload.kernel[1]) as j:
                row, column = T.bind(start[0] + i * dilation[0]), T.bind(start[1] + j * dilation[1])
                with T.If(tirx.all(row >= 0, row < height, column >= 0, column < width)), T.Then():
                    codes = load(x, (row * width + column) * chunks + chunk, config.codes, workload.x)
                    for at, code in enumerate(codes):
                        T.buffer_store(total, _taken(workload, total[at], code), [at])
            store(out, number, [_code(workload, total[at]) for at in range(config.codes)], out_format)
    return builder.get()


def _first(workload: MaxPool2d | AvgPool2d) -> int:
    """What a window of nothing but padding makes."""
    return workload.x.limits[0] if isinstance(workload, MaxPool2d) else 0


def _taken(workload: MaxPool2d | AvgPool2d, total, code):
    """A window's total with one more code."""
    return tirx.max(total, code) if isinstance(workload, MaxPool2d) else total + (code - workload.x_zero_point)


def _code(workload: MaxPool2d | AvgPool2d, total):
    if isinstance(workload, MaxPool2d):
        return total
    rescaled = compute.scalar_rescale(workload.b, workload.c)(total, None)
    return compute.clip(rescaled + workload.zero_point, workload.lo, workload.hi)
