"""Max and average pooling of NCHW16c codes, on any x86-64.

Max: each output row first takes the maximum of its input rows into a padded line, a whole cache line of codes at a
time, then the maximum along that line; padding is the least code and so never wins.
Average: ``clip((sum(q - z) * b + 2**(c-1)) >> c + zero_point)`` of the taps inside the input.
"""

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import BLOCK, Format
from schedules.cpu.codes import load_codes, pixel_elements, store_codes
from schedules.cpu.intrin import LANES, argument, chunks, flat, load, scratch, splat, store, task_loop, view
from schedules.cpu.requantize import fits_fast, scalar_term, sum_of_terms
from schedules.target import CpuTarget
from schedules.workload import AvgPool2d, MaxPool2d

NAME = "pool"
WORTH_A_TASK = 4096  # taps of 16 codes; less takes no longer than to wake a thread


@dataclass(frozen=True)
class Config:
    tasks: int  # equal shares of the images' channel blocks


def formats(workload, target: CpuTarget) -> tuple[Format, str] | None:
    if not isinstance(workload, (MaxPool2d, AvgPool2d)):
        return None
    return Format(workload.x.code, "NCHW16c", workload.x.packed), "NCHW16c"


def check(config: Config, workload, target: CpuTarget) -> str | None:
    if workload.x.layout != "NCHW16c" or _out_format(workload).layout != "NCHW16c":
        return "input and output must be NCHW16c"
    if _planes(workload) % config.tasks:
        return "tasks must divide the images' channel blocks"
    return None


def space(workload, target: CpuTarget, threads: int) -> list[Config]:
    planes = _planes(workload)
    return [Config(tasks) for tasks in sorted({1, threads, 2 * threads, planes}) if planes % tasks == 0]


def default(workload, target: CpuTarget, threads: int) -> Config:
    """The most even shares that are worth a thread."""
    _, _, oh, ow = workload.out_dims
    planes = _planes(workload)
    taps = oh * ow * workload.kernel[0] * workload.kernel[1]
    if threads == 1 or planes * taps < threads * WORTH_A_TASK:
        return Config(1)
    return Config(next(tasks for tasks in range(min(threads, planes), planes + 1) if planes % tasks == 0))


def constants(config: Config, workload) -> list:
    return []


def _planes(workload) -> int:
    return workload.dims[0] * -(-workload.dims[1] // BLOCK)


def _out_format(workload) -> Format:
    return workload.x if isinstance(workload, MaxPool2d) else workload.out


def build(config: Config, workload, target: CpuTarget):
    """PrimFunc ``(x, out)``."""
    out_format = _out_format(workload)
    share = _planes(workload) // config.tasks
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        x = argument("x", workload.x.shape(workload.dims), workload.x.dtype)
        out = argument("out", out_format.shape(workload.out_dims), out_format.dtype)
        x, out = flat(x), flat(out)
        emit = _max_row if isinstance(workload, MaxPool2d) else _average_row
        with task_loop(config.tasks) as task:
            line = scratch(_line_pixels(workload) * LANES, workload.x.dtype)
            with T.serial(share) as index, T.serial(workload.out_dims[2]) as row:
                emit(workload, x, out, line, T.bind(task * share + index), row)
    return builder.get()


def _line_pixels(workload) -> int:
    """Pixels under a whole output row, padding included."""
    dilation = workload.dilation[1] if isinstance(workload, MaxPool2d) else 1
    return (workload.out_dims[3] - 1) * workload.strides[1] + (workload.kernel[1] - 1) * dilation + 1


def _max_row(workload: MaxPool2d, x, out, line, plane, row):
    _, _, height, width = workload.dims
    _, _, oh, ow = workload.out_dims
    per_pixel = pixel_elements(workload.x)
    pixels = _line_pixels(workload)
    least = workload.x.limits[0]
    most = 64 // {"uint8": 1, "int16": 2, "int32": 4}[workload.x.dtype]

    def lanes_of(count):
        return f"{workload.x.dtype}x{count}"

    chunks(pixels * per_pixel, most, lambda at, lanes: store(line, at, splat(least, workload.x.dtype, lanes)))
    left = min(workload.padding[1], pixels)
    inside = max(0, min(width, pixels - left)) * per_pixel
    with T.serial(workload.kernel[0]) as tap:
        source = T.bind(row * workload.strides[0] - workload.padding[0] + tap * workload.dilation[0])
        with T.If(T.And(source >= 0, source < height)), T.Then():
            base = T.bind((plane * height + source) * (width * per_pixel))

            def row_maximum(at, lanes):
                here = left * per_pixel + at
                above = load(line, here, lanes_of(lanes))
                store(line, here, _maximum(above, load(x, base + at, lanes_of(lanes)), workload.x.packed))

            chunks(inside, most, row_maximum)
    with T.serial(ow) as column:
        taps = [
            load(line, (column * workload.strides[1] + tap * workload.dilation[1]) * per_pixel, lanes_of(per_pixel))
            for tap in range(workload.kernel[1])
        ]
        value = taps[0]
        for tap in taps[1:]:
            value = T.bind(_maximum(value, tap, workload.x.packed))
        store(out, ((plane * oh + row) * ow + column) * per_pixel, value)


def _maximum(a, b, packed: bool):
    """Lane by lane, or nibble by nibble."""
    if not packed:
        return tirx.max(a, b)
    words = str(a.ty.dtype)
    lanes = 4 * int(words.partition("x")[2])
    a, b = (view(f"uint8x{lanes}", words_) for words_ in (a, b))
    low, high = splat(0x0F, "uint8", lanes), splat(0xF0, "uint8", lanes)
    return view(words, tirx.max(a & low, b & low) | tirx.max(a & high, b & high))


def _average_row(workload: AvgPool2d, x, out, line, plane, row):
    _, _, height, width = workload.dims
    _, _, oh, ow = workload.out_dims
    reach = max(abs(limit - workload.x_zero_point) for limit in workload.x.limits)
    fast = fits_fast(reach * workload.kernel[0] * workload.kernel[1], workload.b, workload.c)
    total = scratch(LANES, "int32")

    def inside(position, axis, extent):
        """First tap and number of taps of a window inside the input along one axis."""
        start = T.bind(position * workload.strides[axis] - workload.padding[axis])
        first = T.bind(tirx.max(start, 0))
        return first, T.bind(tirx.max(tirx.min(start + workload.kernel[axis], extent) - first, 0))

    first_row, rows = inside(row, 0, height)
    with T.serial(ow) as column:
        first_column, columns = inside(column, 1, width)
        store(total, 0, splat(0, "int32"))
        with T.serial(rows) as i, T.serial(columns) as j:
            pixel = T.bind((plane * height + first_row + i) * width + first_column + j)
            store(total, 0, load(total, 0, "int32x16") + load_codes(x, pixel, workload.x))
        value = load(total, 0, "int32x16")
        if workload.x_zero_point:
            value = value - tirx.Broadcast(rows * columns * workload.x_zero_point, LANES)
        term = scalar_term(value, workload.b, workload.c, fast)
        code = T.bind(sum_of_terms([term], workload.zero_point, workload.lo, workload.hi, fast))
        store_codes(out, (plane * oh + row) * ow + column, code, workload.out, workload.lo, workload.hi)
