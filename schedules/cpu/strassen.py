"""1x1 convolutions of 4-bit operands as one level of Strassen's matrix product: seven half products instead of eight.

Exact: sums of up to four 4-bit codes or weights fit a byte, so every product runs on the byte dot product.  A task
adds up the pixels of its input, multiplies, and sums, requantizes and writes its outputs.
"""

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import BLOCK, Format
from schedules.cpu import strassen_space
from schedules.cpu.channel_table import channel_table, table_rows
from schedules.cpu.intrin import LANES, argument, flat, task_loop
from schedules.cpu.strassen_geometry import Config, Geometry
from schedules.cpu.strassen_kernel import STARTS, Kernel
from schedules.cpu.strassen_weights import pack, quarters, starts, transform, transformed_shape
from schedules.target import CpuTarget
from schedules.workload import Conv2d

NAME = "strassen_conv2d"


def formats(workload, target: CpuTarget) -> tuple[Format, str] | None:
    if not (target.vnni and isinstance(workload, Conv2d)) or workload.groups != 1 or workload.weight_bits != 4:
        return None
    if workload.kernel != (1, 1) or any(workload.padding) or workload.x.code != "uint4":
        return None
    if workload.epilogue is None or workload.epilogue.codes or workload.pool:
        return None
    if -(-workload.out_channels // BLOCK) % 2:
        return None
    return Format(workload.x.code, "NCHW16c", workload.x.packed), "NCHW16c"


def check(config: Config, workload: Conv2d, target: CpuTarget) -> str | None:
    wanted = formats(workload, target)
    if wanted is None:
        return (
            "only 1x1 convolutions of uint4 and 4-bit weights without padding, with one group, an epilogue of one "
            "output and an even number of its channel blocks, on AVX512-VNNI"
        )
    if workload.x != wanted[0]:
        return f"input must be {wanted[0]}"
    if any(format.layout != "NCHW16c" for format in workload.epilogue.formats):
        return "output and residual must be NCHW16c"
    return strassen_space.check(config, workload)


def space(workload: Conv2d, target: CpuTarget, threads: int) -> list[Config]:
    return strassen_space.space(workload, threads)


def default(workload: Conv2d, target: CpuTarget, threads: int) -> Config:
    """The config that the cycle estimate of :mod:`strassen_space` likes best."""
    return min(space(workload, target, threads), key=lambda config: cycles(config, workload, target, threads))


def cycles(config: Config, workload: Conv2d, target: CpuTarget, threads: int) -> float:
    """The estimate of :func:`strassen_space.cycles`."""
    return strassen_space.cycles(config, workload, threads)


def build(config: Config, workload: Conv2d, target: CpuTarget):
    """PrimFunc ``(x, weights, starts, table, [residual], out)``; :func:`constants` makes the middle three, expanded."""
    geo, epilogue = Geometry(workload, config), workload.epilogue
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        arguments = [
            argument("x", workload.x.shape(workload.x_dims), workload.x.dtype),
            argument("weights", transformed_shape(geo), "int8"),
            argument("starts", (geo.groups, STARTS, config.oc_tile, LANES), "int32"),
            argument("table", (geo.out_blocks, table_rows(epilogue), LANES), "int32"),
        ]
        if epilogue.residual:
            residual = epilogue.residual.format
            arguments.append(argument("residual", residual.shape(workload.out_dims), residual.dtype))
        arguments.append(argument("out", epilogue.out.shape(workload.out_dims), epilogue.out.dtype))
        x, weights, first, table, *residual, out = (flat(buffer) for buffer in arguments)
        kernel = Kernel(geo, target, x, weights, first, table, residual[0] if residual else None, out)
        parts, shares = -(-geo.unit_tiles // config.tiles), geo.groups // config.oc_groups
        with task_loop(geo.units * parts * shares) as task:
            tile0 = tirx.min(task // shares % parts * config.tiles, geo.unit_tiles - config.tiles)
            kernel.task(T.bind(task // (parts * shares)), T.bind(tile0), T.bind(task % shares))
    return builder.get()


def expand(config: Config, workload: Conv2d) -> list:
    """How the library's loading changes the constants: PrimFunc ``(stored, expanded)``, or None for not at all."""
    return [transform(Geometry(workload, config)), None, None]


def constants(config: Config, workload: Conv2d, weight, bias, b, c) -> list[np.ndarray]:
    """``weight (O,C,1,1)`` int8, ``bias``, ``b``, ``c`` ``(O,)`` int32 -> weights, starts, table."""
    geo = Geometry(workload, config)
    out_channels, channels = weight.shape[:2]
    padded = np.zeros((geo.out_blocks * BLOCK, geo.in_blocks * BLOCK), "int8")
    padded[:out_channels, :channels] = weight[:, :, 0, 0]
    split = quarters(geo, padded)
    full_bias = np.zeros(len(padded), "int64")
    full_bias[:out_channels] = bias
    table = channel_table(geo.out_blocks, workload.epilogue, np.zeros_like(bias), b, c)
    return [pack(geo, split), starts(split, full_bias), table]
