"""Direct convolution: 8- or 4-bit weights, uint8 or packed uint4 input, requantization in registers.

``acc[n,o,y,x] = bias[o] + sum_{c,i,j} w[o,c,i,j] * q[n, c, y*sh + i*dh - top, x*sw + j*dw - left]``

A task is some images, a band of output rows and some output channels.  It copies its input to padded rows if the
convolution pads or the input is packed, and then keeps ``row_tile x col_tile`` pixels by ``oc_tile`` channel blocks
in registers over the whole reduction; without VNNI there are more of them than registers, in the first-level cache.

Weights are ``(O/(16*oc_tile), taps, words, oc_tile, 16, 4)`` int8.  With 4 bits a 64-byte vector holds two neighbouring
vectors of that array, the first in the low nibbles; they are unpacked when the library is loaded, or by the kernel
once for each task and group of channels, as are bytes that :mod:`dot4` wants in two parts.
"""

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import BLOCK, Format
from schedules.cpu import conv2d_space
from schedules.cpu.channel_table import channel_table, table_rows
from schedules.cpu.conv2d_geometry import geometry, is_stem
from schedules.cpu.conv2d_kernel import Kernel
from schedules.cpu.conv2d_pool import PooledKernel, poolable
from schedules.cpu.conv2d_space import Config
from schedules.cpu.intrin import LANES, WORD_ORDER, argument, flat, task_loop
from schedules.cpu.nibbles import pack_nibbles, unpack_nibbles
from schedules.target import CpuTarget
from schedules.workload import Conv2d

NAME = "direct_conv2d"


def formats(workload, target: CpuTarget) -> tuple[Format, str] | None:
    if not (target.avx2 and isinstance(workload, Conv2d) and workload.groups == 1):
        return None
    if workload.x.code not in ("uint4", "uint8"):
        return None
    if workload.pool and not poolable(workload):
        return None
    if is_stem(workload):
        return Format(workload.x.code, "NCHW"), "NCHW16c"
    return Format(workload.x.code, "NCHW16c", workload.x.packed), "NCHW16c"


def check(config: Config, workload: Conv2d, target: CpuTarget) -> str | None:
    wanted = formats(workload, target)
    if wanted is None:
        return "only convolutions of uint4 or uint8 with one group, a pool only of a stem, on AVX2 or better"
    if workload.x != wanted[0]:
        return f"input must be {wanted[0]}"
    if workload.epilogue and any(format.layout != "NCHW16c" for format in workload.epilogue.formats):
        return "outputs and residual must be NCHW16c"
    return conv2d_space.check(config, workload, target)


def space(workload: Conv2d, target: CpuTarget, threads: int) -> list[Config]:
    return conv2d_space.space(workload, target, threads)


def default(workload: Conv2d, target: CpuTarget, threads: int) -> Config:
    """The config that the cycle estimate of :mod:`conv2d_space` likes best."""
    return min(space(workload, target, threads), key=lambda config: cycles(config, workload, target, threads))


def cycles(config: Config, workload: Conv2d, target: CpuTarget, threads: int) -> float:
    """The estimate of :func:`conv2d_space.cycles`."""
    return conv2d_space.cycles(config, workload, target, threads)


def build(config: Config, workload: Conv2d, target: CpuTarget):
    """PrimFunc ``(x, weights, table, [residual], out, [codes])``.

    :func:`constants`, expanded, are weights and table.
    """
    geo, epilogue = geometry(workload), workload.epilogue
    groups = geo.out_blocks // config.oc_tile
    written = epilogue.outputs if epilogue else (Format("int32", "NCHW16c"),)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        arguments = [
            argument("x", workload.x.shape(workload.x_dims), workload.x.dtype),
            argument("weights", _weights_shape(config, workload, config.weight_bits(workload)), "int8"),
            argument("table", (geo.out_blocks, table_rows(epilogue), LANES), "int32"),
        ]
        if epilogue and epilogue.residual:
            residual = epilogue.residual.format
            arguments.append(argument("residual", residual.shape(workload.out_dims), residual.dtype))
        outputs = [
            argument(name, format.shape(workload.out_dims), format.dtype)
            for name, format in zip(("out", "codes"), written, strict=False)
        ]
        x, weights, table, *residual = (flat(buffer) for buffer in arguments)
        outputs = [flat(buffer) for buffer in outputs]
        make = PooledKernel if workload.pool else Kernel
        kernel = make(config, workload, target, geo, x, weights, table, residual[0] if residual else None, outputs)
        tasks = (geo.batch // config.images, -(-geo.rows // config.rows), groups // config.oc_groups)
        count = tasks[0] * tasks[1] * tasks[2]
        with task_loop(count) as task:
            image = task // (tasks[1] * tasks[2])
            kernel.task(image * config.images, task // tasks[2] % tasks[1], task % tasks[2])
    return builder.get()


def _weights_shape(config: Config, workload: Conv2d, bits: int) -> tuple[int, int]:
    geo = geometry(workload)
    vectors = geo.taps * geo.words * config.oc_tile
    return (geo.out_blocks // config.oc_tile, vectors * 64 * bits // 8)


def expand(config: Config, workload: Conv2d) -> list:
    """How the library's loading changes weights and table: PrimFunc ``(stored, expanded)``, or None for not at all."""
    return [unpack_nibbles(*_weights_shape(config, workload, 4)) if config.expanded else None, None]


def constants(config: Config, workload: Conv2d, weight, bias, b=None, c=None) -> list[np.ndarray]:
    """``weight (O,C,KH,KW)`` int8, ``bias``, ``b``, ``c`` ``(O,)`` int32 -> weights and table as a task reads them."""
    geo = geometry(workload)
    out_channels, channels, kh, kw = weight.shape
    padded = np.zeros((geo.out_blocks * BLOCK, geo.in_blocks * BLOCK, kh, kw), "int8")
    padded[:out_channels, :channels] = weight
    split = (geo.out_blocks // config.oc_tile, config.oc_tile, LANES)
    if geo.stem:
        line = np.zeros((*split, kh, geo.words * 4), "int8")
        line[..., : kw * channels] = padded[:, :channels].transpose(0, 2, 3, 1).reshape(*split, kh, kw * channels)
        ordered = line.reshape(*split, kh, geo.words, 4).transpose(0, 3, 4, 1, 2, 5)
    else:
        if workload.x.packed:
            order = np.arange(padded.shape[1]).reshape(-1, 8)[:, WORD_ORDER].ravel()
            padded = padded[:, order]
        ordered = padded.reshape(*split, geo.in_blocks, geo.words, 4, kh, kw).transpose(0, 3, 6, 7, 4, 1, 2, 5)
    weights = np.ascontiguousarray(ordered).reshape(split[0], -1)
    if workload.weight_bits == 4:
        low, high = weights.reshape(split[0], -1, 2, 64).transpose(2, 0, 1, 3)
        weights = pack_nibbles(low, high).reshape(split[0], -1)
    return [np.ascontiguousarray(weights), channel_table(geo.out_blocks, workload.epilogue, bias, b, c)]
