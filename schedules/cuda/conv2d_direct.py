"""Direct convolution on Tensor Cores: uint8 x int8 or uint4 x int4, requantization in registers.

``acc[n,o,y,x] = bias[o] + sum_{c,i,j} w[o,c,i,j] * q[n, c, y*sh + i*dh - top, x*sw + j*dw - left]``

A block makes a tile of output pixels of up to 8 images, and some output channels.  For each chunk of input channels
it copies the pixels under the tile to shared memory once, and multiplies them from there at every kernel position:
the reduction of ``mma.m8n8k32`` (4 bits) or ``m8n8k16`` (8 bits) is over four words of a pixel.  Where Tensor Cores
have no 4-bit products, the same words are unpacked in registers.

Weights are int32 words in the order in which lanes hold them, ``(tile of channels, chunk, tap, quad, warp by channels,
fragments/4, lane, 4)``, and lane ``4*n + k`` has word k of column n.  Of a warp's ``frags_n`` fragments column
``2*j + e`` of fragment f is channel ``2*frags_n*j + 2*f + e``, so that a lane's sums are of neighbouring channels.
"""

from dataclasses import dataclass

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import Format
from hawqtvm.qnn.packing import pack_words, unpack_words
from schedules.cpu.intrin import argument
from schedules.cuda import conv2d_estimate, conv2d_space
from schedules.cuda.conv2d_geometry import QUAD, Geometry, geometry, is_stem
from schedules.cuda.conv2d_kernel import Kernel
from schedules.cuda.conv2d_space import LANES, LEAST, Config
from schedules.cuda.device import UNPACKED_SHIFT
from schedules.cuda.epilogue import BITS, MAX_SHIFT, Finish
from schedules.cuda.memory import unrolled, when
from schedules.target import CudaTarget
from schedules.workload import Conv2d, Epilogue

MOST_UNPACKED = 2**31 // (15 * 8 << UNPACKED_SHIFT)  # products whose sum is in int32
NAME = "tensor_core_conv2d"
LAYOUT = "HWNC"


def formats(workload, target) -> tuple[Format, str] | None:
    if not (isinstance(target, CudaTarget) and isinstance(workload, Conv2d) and workload.groups == 1):
        return None
    if workload.pool:
        return None
    if workload.x.code not in ("uint4", "uint8") or BITS[workload.x.code] != workload.weight_bits:
        return None
    kh, kw = workload.kernel
    if unpacked_shift(workload, target) and workload.in_channels * kh * kw >= MOST_UNPACKED:
        return None
    if conv2d_space.check(LEAST, workload, target):
        return None
    if is_stem(workload):
        return Format("uint8", "NCHW"), LAYOUT
    return Format(workload.x.code, LAYOUT, workload.x.code == "uint4"), LAYOUT


def check(config: Config, workload: Conv2d, target: CudaTarget) -> str | None:
    wanted = formats(workload, target)
    if wanted is None:
        return "only convolutions of uint4 x int4 or uint8 x int8 with one group, of a kernel that fits shared memory"
    if workload.x != wanted[0]:
        return f"input must be {wanted[0]}"
    if workload.epilogue and any(format.layout != LAYOUT for format in workload.epilogue.formats):
        return f"outputs and residual must be {LAYOUT}"
    return conv2d_space.check(config, workload, target)


def space(workload: Conv2d, target: CudaTarget, threads: int) -> list[Config]:
    """The configs of :mod:`conv2d_space`; on a GPU ``threads`` means nothing."""
    return conv2d_space.space(workload, target)


def default(workload: Conv2d, target: CudaTarget, threads: int) -> Config:
    """The tile that the estimate likes best; of equal ones that with least shared memory."""
    geo = geometry(workload)

    def cost(config: Config) -> tuple[float, int]:
        return cycles(config, workload, target, threads), conv2d_space.shared_bytes(config, geo)

    return min(conv2d_space.tiles(workload, target), key=cost)


def cycles(config: Config, workload: Conv2d, target: CudaTarget, threads: int) -> float:
    """The estimate of :func:`conv2d_estimate.cycles`."""
    return conv2d_estimate.cycles(config, workload, target)


@dataclass(frozen=True)
class Where:
    """A thread's place; ``warp``, ``origin`` and ``out_tile`` as of :class:`Kernel`."""

    lane: object
    thread: object
    warp: tuple
    origin: tuple
    out_tile: object


def build(config: Config, workload: Conv2d, target: CudaTarget):
    """PrimFunc ``(x, weights, table, [residual], out, [codes])``; :func:`constants` makes weights and table."""
    return build_in(config, workload, target, workload.x_dims, workload.out_dims)


def build_in(config: Config, workload: Conv2d, target: CudaTarget, x_dims, out_dims):
    """As :func:`build` of input and outputs that have other dims in the same memory."""
    geo, epilogue = geometry(workload), workload.epilogue
    written = epilogue.outputs if epilogue else (Format("int32", LAYOUT),)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        arguments = [
            argument("x", workload.x.shape(x_dims), workload.x.dtype),
            argument("weights", weights_shape(config, geo), "int32"),
            argument("table", (table_rows(epilogue), geo.out_channels), "int32"),
        ]
        if epilogue and epilogue.residual:
            residual = epilogue.residual.format
            arguments.append(argument("residual", residual.shape(out_dims), residual.dtype))
        arguments += [
            argument(name, format.shape(out_dims), format.dtype)
            for name, format in zip(("out", "codes"), written, strict=False)
        ]
        x, weights, table, *rest = (
            as_words(buffer, geo.stem > 0 and number == 0) for number, buffer in enumerate(arguments)
        )
        residual, outputs = (rest[0], rest[1:]) if epilogue and epilogue.residual else (None, rest)
        tiles = (geo.images // geo.rows, -(-geo.y.out // config.height), -(-geo.x.out // (config.width * geo.pixels)))
        out_tiles = geo.out_channels // config.channels
        with (
            T.launch_thread("blockIdx.x", tiles[0] * tiles[1] * tiles[2] * out_tiles) as block,
            T.launch_thread("threadIdx.y", config.warps) as warp,
            T.launch_thread("threadIdx.x", LANES) as lane,
        ):
            where = _where(config, geo, tiles, out_tiles, block, warp, lane)
            kernel = Kernel(config, workload, target, geo, x, weights, where)
            kernel.reduce()
            with when(where.warp[2] == 0 if config.warps_k > 1 else None):
                _finish(config, workload, target, geo, where, kernel.sums, table, residual, outputs)
    return builder.get()


def as_words(buffer, plain: bool):
    """A one-dimensional view of an argument, of int32 words unless it is plain codes."""
    size = int(np.prod([int(extent) for extent in buffer.shape]))
    dtype = buffer.dtype if plain else "int32"
    held = 1 if plain else 4 // np.dtype(str(buffer.dtype)).itemsize
    return IRBuilder.name(buffer.name, T.decl_buffer((size // held,), dtype, data=buffer.data, align=64, layout=None))


def _where(config: Config, geo: Geometry, tiles: tuple, out_tiles: int, block, warp, lane) -> Where:
    pixels = tiles[0] * tiles[1] * tiles[2]
    out_tile, tile = (
        (block % out_tiles, block // out_tiles) if config.channels_first else (block // pixels, block % pixels)
    )
    tile, out_tile = T.bind(tile), T.bind(out_tile)
    group, row, column = tile // (tiles[1] * tiles[2]), tile // tiles[2] % tiles[1], tile % tiles[2]
    origin = T.bind(group), T.bind(row * config.height), T.bind(column * (config.width * geo.pixels))
    by_channels = warp // config.warps_m
    warps = warp % config.warps_m, by_channels % config.warps_n, by_channels // config.warps_n
    return Where(lane, warp * LANES + lane, warps, origin, out_tile)


def _finish(config: Config, workload, target, geo: Geometry, where: Where, sums, table, residual, outputs):
    """Requantizes and writes the fragments of a warp."""
    epilogue, count, (group, row0, column0) = workload.epilogue, 2 * config.frags_n, where.origin
    written = epilogue.outputs if epilogue else (Format("int32", LAYOUT),)
    fragment_row, place = where.lane // QUAD, where.lane % QUAD
    channel = T.bind(where.out_tile * config.channels + (where.warp[1] * QUAD + place) * count)
    finish = Finish(epilogue, count, channel, place, geo.out_channels, table)
    shift = unpacked_shift(workload, target)
    with unrolled(config.frags_m) as m:
        fragment = T.bind(where.warp[0] * config.frags_m + m)
        y = T.bind(row0 + fragment // config.width)
        x = T.bind(column0 + fragment % config.width * geo.pixels + fragment_row // geo.rows)
        image = group * geo.rows + fragment_row % geo.rows
        row = T.bind((y * geo.x.out + x) * geo.images + image)
        inside = None
        if geo.y.out % config.height or geo.x.out % (config.width * geo.pixels):
            inside = T.bind((y < geo.y.out) & (x < geo.x.out))
            row = T.bind(T.Select(inside, row, 0))
        values = [sums[m * count + k] for k in range(count)]
        made = finish.codes([v >> shift if shift else v for v in values], residual, row)
        for buffer, format, codes in zip(outputs, written, made, strict=True):
            bits = BITS[format.code]
            words = finish.words(codes, bits)
            with when(inside):
                finish.store(buffer, words, row, bits)


def unpacked_shift(workload: Conv2d, target: CudaTarget) -> int:
    """By how many bits the sums are too large."""
    return UNPACKED_SHIFT if workload.weight_bits == 4 and not target.int4 else 0


def table_rows(epilogue: Epilogue | None) -> int:
    """Bias, and with an epilogue b and c, of each output channel."""
    return 3 if epilogue else 1


def weights_shape(config: Config, geo: Geometry) -> tuple[int, int]:
    taps = geo.taps[0] * geo.taps[1]
    return geo.out_channels // config.channels, taps * geo.quads * QUAD * config.channels


def constants(config: Config, workload: Conv2d, weight, bias, b=None, c=None) -> list[np.ndarray]:
    """``weight (O,C,KH,KW)`` int8, ``bias``, ``b``, ``c`` ``(O,)`` int32 -> weights and table as a block reads them."""
    geo = geometry(workload)
    words = np.ascontiguousarray(in_lane_order(config, workload, weight_words(workload, weight)))
    return [words.reshape(weights_shape(config, geo)), _table(geo, workload.epilogue, bias, b, c)]


def weight_words(workload: Conv2d, weight: np.ndarray) -> np.ndarray:
    """``weight (O,C,KH,KW)`` int8 -> ``(channels, rows, columns, words)`` int32, with zeros past its ends."""
    geo, (kh, kw) = geometry(workload), workload.kernel
    codes = 4 if geo.stem else geo.quads * QUAD * (32 // workload.weight_bits)
    columns = geo.taps[1] * QUAD if geo.stem else kw
    padded = np.zeros((geo.out_channels, kh, columns, codes), "int8")
    padded[: weight.shape[0], :, :kw, : weight.shape[1]] = weight.transpose(0, 2, 3, 1)
    return pack_words(padded, 3) if workload.weight_bits == 4 else padded.view("int32")


def weight_codes(workload: Conv2d, words: np.ndarray) -> np.ndarray:
    """The weight of :func:`weight_words`."""
    codes = unpack_words(words, 3, signed=True) if workload.weight_bits == 4 else words.view("int8")
    _, kw = workload.kernel
    return codes[: workload.out_channels, :, :kw, : workload.in_channels].transpose(0, 3, 1, 2)


def in_lane_order(config: Config, workload: Conv2d, words: np.ndarray) -> np.ndarray:
    """A view of :func:`weight_words` in which they follow one another as in the kernel's weights."""
    geo = geometry(workload)
    # channels: tile, warp, j, fragment, e; words: row of the kernel, column, chunk, quad, k
    fragments = min(config.frags_n, 4)
    split = (-1, config.warps_n, 4, config.frags_n // fragments, fragments, 2)
    words = words.reshape(*split, geo.taps[0] * geo.taps[1], geo.quads // config.chunk, config.chunk, QUAD)
    return words.transpose(0, 7, 6, 8, 1, 3, 2, 5, 9, 4)


def _table(geo: Geometry, epilogue: Epilogue | None, bias, b, c) -> np.ndarray:
    """``(rows, channels)`` int32; of channels past the last: 0, 0 and the least shift."""
    rows = [(bias, 0)]
    if epilogue:
        if min(c) < max(epilogue.min_shift, 1) or max(c) > MAX_SHIFT:
            raise ValueError(f"shifts {min(c)}..{max(c)} are outside {epilogue.min_shift}..{MAX_SHIFT}")
        rows += [(b, 0), (c, MAX_SHIFT)]
    table = np.zeros((len(rows), geo.out_channels), "int32")
    for row, (values, other) in zip(table, rows, strict=True):
        row[: len(values)], row[len(values) :] = values, other
    return table
