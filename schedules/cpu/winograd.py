"""3x3 convolutions of 4-bit weights in fewer products than the direct way, exactly: see :mod:`schedules.cpu.bilinear`.

4-bit weights leave room in a byte for sums of four taps' combinations, and codes up to 63 for sums of four samples, so
every product runs on the byte dot product.  A task stages some input rows, combines their samples, multiplies plane by
plane, and sums the planes to outputs that it requantizes and writes at once.
"""

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import BLOCK, Format
from schedules.cpu import winograd_space
from schedules.cpu.bilinear import TAPS, scale_bits, starts, transform_weights, widest
from schedules.cpu.channel_table import MAX_SHIFT, channel_table, table_rows
from schedules.cpu.intrin import LANES, argument, flat, task_loop
from schedules.cpu.winograd_geometry import Config, geometry
from schedules.cpu.winograd_kernel import Kernel
from schedules.cpu.winograd_weights import pack, transform, transformed_shape
from schedules.target import CpuTarget
from schedules.workload import Conv2d

NAME = "winograd_conv2d"


def formats(workload, target: CpuTarget) -> tuple[Format, str] | None:
    if _refusal(workload, target):
        return None
    return Format(workload.x.code, "NCHW16c", workload.x.packed), "NCHW16c"


def _refusal(workload, target: CpuTarget) -> str | None:
    """Why no config takes the workload, in whichever layouts."""
    if not (
        target.avx2
        and isinstance(workload, Conv2d)
        and (workload.x.code, workload.weight_bits, workload.groups) == ("uint4", 4, 1)
        and (workload.kernel, workload.dilation) == ((TAPS, TAPS), (1, 1))
        and set(workload.strides) <= {1, 2}
    ):
        return "only 3x3 convolutions of uint4 and 4-bit weights, stride 1 or 2, with one group, on AVX2"
    if workload.pool:
        return "no pool"
    if workload.epilogue is None:
        return "accumulators leave it scaled: it needs an epilogue"
    if min(workload.out_dims[2:]) < 1:
        return "the output is empty"
    if workload.headroom < scale_bits(workload.strides):
        return f"accumulators times {1 << scale_bits(workload.strides)} may leave int32"
    return None


def check(config: Config, workload: Conv2d, target: CpuTarget) -> str | None:
    refusal = _refusal(workload, target)
    if refusal:
        return refusal
    wanted, layout = formats(workload, target)
    if workload.x != wanted:
        return f"input must be {wanted}"
    if any(format.layout != layout for format in workload.epilogue.formats):
        return f"outputs and residual must be {layout}"
    for region in geometry(config, workload).regions:
        algorithms = region.rows.algorithm, region.columns.algorithm
        if max(widest(algorithm, workload.x.limits[1]) for algorithm in algorithms) > 255:
            return "sums of samples may leave a byte"
    return winograd_space.check(config, workload, target)


def space(workload: Conv2d, target: CpuTarget, threads: int) -> list[Config]:
    return winograd_space.space(workload, target, threads)


def default(workload: Conv2d, target: CpuTarget, threads: int) -> Config:
    """The config that the cycle estimate of :mod:`winograd_space` likes best."""
    return min(space(workload, target, threads), key=lambda config: cycles(config, workload, target, threads))


def cycles(config: Config, workload: Conv2d, target: CpuTarget, threads: int) -> float:
    """The estimate of :func:`winograd_space.cycles`."""
    return winograd_space.cycles(config, workload, target, threads)


def build(config: Config, workload: Conv2d, target: CpuTarget):
    """PrimFunc ``(x, weights, starts, table, [residual], out, [codes])``.

    :func:`constants`, expanded, are weights, starts and table.
    """
    geo = geometry(config, workload)
    epilogue = geo.epilogue
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        arguments = [
            argument("x", workload.x.shape(workload.x_dims), workload.x.dtype),
            argument("weights", transformed_shape(geo), "int8"),
            argument("starts", (geo.groups, geo.constants, config.oc_tile, LANES), "int32"),
            argument("table", (geo.out_blocks, table_rows(epilogue), LANES), "int32"),
        ]
        if epilogue.residual:
            residual = epilogue.residual.format
            arguments.append(argument("residual", residual.shape(workload.out_dims), residual.dtype))
        outputs = [
            argument(name, format.shape(workload.out_dims), format.dtype)
            for name, format in zip(("out", "codes"), epilogue.outputs, strict=False)
        ]
        x, weights, first, table, *residual = (flat(buffer) for buffer in arguments)
        outputs = [flat(buffer) for buffer in outputs]
        kernel = Kernel(geo, target, x, weights, first, table, residual[0] if residual else None, outputs)
        rows = geo.rows.segments[0].tiles
        tasks = (geo.workload.batch // config.images, -(-rows // config.band), geo.groups // config.oc_groups)
        with task_loop(tasks[0] * tasks[1] * tasks[2]) as task:
            image0 = T.bind(task // (tasks[1] * tasks[2]) * config.images)
            band = tirx.min(task // tasks[2] % tasks[1] * config.band, rows - config.band)
            kernel.task(image0, T.bind(band), T.bind(task % tasks[2]))
    return builder.get()


def expand(config: Config, workload: Conv2d) -> list:
    """How the library's loading changes the constants: PrimFunc ``(stored, expanded)``, or None for not at all."""
    return [transform(geometry(config, workload)), None, None]


def constants(config: Config, workload: Conv2d, weight, bias, b, c) -> list[np.ndarray]:
    """``weight (O,C,3,3)`` int8, ``bias``, ``b``, ``c`` ``(O,)`` int32 -> weights, starts, table."""
    geo = geometry(config, workload)
    out_channels, channels = weight.shape[:2]
    padded = np.zeros((geo.out_blocks * BLOCK, geo.in_blocks * BLOCK, TAPS, TAPS), "int8")
    padded[:out_channels, :channels] = weight
    if workload.x.packed:  # a slice has the even or the odd channels of a block
        order = np.arange(padded.shape[1]).reshape(-1, 8, 2).transpose(0, 2, 1).ravel()
        padded = padded[:, order]
    bits = geo.scale_bits
    combined = transform_weights(geo.rows, geo.columns, padded)
    full_bias = np.zeros(len(padded), "int64")
    full_bias[:out_channels] = bias
    first = [
        starts(
            region.rows.algorithm, region.columns.algorithm, combined.sum(-1), full_bias << bits, workload.x.limits[1]
        )
        for region in geo.regions
    ]
    shift = np.asarray(c) + bits
    b, c = np.where(shift > MAX_SHIFT, 0, b), np.minimum(shift, MAX_SHIFT)  # a shift past it makes 0 of any accumulator
    first = np.concatenate([values.reshape(-1, len(padded)) for values in first])
    first = first.reshape(-1, geo.groups, config.oc_tile, LANES).transpose(1, 0, 2, 3)
    return [
        pack(geo, padded),
        np.ascontiguousarray(first.astype("int32")),
        channel_table(geo.out_blocks, geo.epilogue, np.zeros_like(bias), b, c),
    ]
