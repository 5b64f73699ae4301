"""What a kernel has to do: operations, bytes of global memory, Tensor Core instructions."""

import math
from dataclasses import dataclass

import numpy as np

from schedules.cuda import conv2d_direct, dense
from schedules.cuda.conv2d_geometry import Geometry, geometry
from schedules.cuda.conv2d_space import WORD_BYTES, Config, input_words, tile
from schedules.dispatch import Choice
from schedules.target import CudaTarget
from schedules.workload import Conv2d, Dense


@dataclass(frozen=True)
class Work:
    """``operations``: two a multiplication of the direct computation; ``bits`` of its factors, None where it has none.

    ``bytes``: of all operands as they are stored, each once, of the input only the pixels that are read.  ``asked``:
    the bytes that all blocks together copy and write.  ``products``: Tensor Core instructions of a block, tails
    included.  The last two are None where the kernel is not one for Tensor Cores.
    """

    operations: int
    bits: int | None
    bytes: int
    asked: int | None = None
    products: int | None = None


def work(choice: Choice, function, blocks: int, target: CudaTarget) -> Work:
    """Of a choice's PrimFunc, which launches ``blocks``."""
    workload = choice.workload
    sizes = [_bytes(buffer) for buffer in function.params]
    least = round(sizes[0] * read_share(workload)) + sum(sizes[1:])
    if choice.schedule not in (conv2d_direct, dense):
        return Work(2 * getattr(workload, "macs", 0), getattr(workload, "weight_bits", None), least)
    conv = dense.as_conv2d(workload) if isinstance(workload, Dense) else workload
    geo = geometry(conv)
    # x, weights, table, then what the epilogue reads and writes
    asked = blocks * copied_bytes(choice.config, geo) + sum(sizes[3:])
    unpacked = 2 if conv2d_direct.unpacked_shift(conv, target) else 1
    return Work(2 * workload.macs, conv.weight_bits, least, asked, unpacked * products(choice.config, geo))


def _bytes(buffer) -> int:
    return math.prod(int(extent) for extent in buffer.shape) * np.dtype(str(buffer.dtype)).itemsize


def read_share(workload) -> float:
    """The share of a convolution's or a pool's input pixels that any output needs: a 1x1 kernel's stride skips some."""
    if not hasattr(workload, "kernel"):
        return 1.0
    dims = workload.x_dims if isinstance(workload, Conv2d) else workload.dims
    dilation = getattr(workload, "dilation", (1, 1))
    share = 1.0
    for axis, (size, outputs) in enumerate(zip(dims[2:], workload.out_dims[2:], strict=True)):
        first = -workload.padding[axis]
        read = {
            first + out * workload.strides[axis] + tap * dilation[axis]
            for out in range(outputs)
            for tap in range(workload.kernel[axis])
        }
        share *= len(read & set(range(size))) / size
    return share


def products(config: Config, geo: Geometry) -> int:
    """Products of fragments of a block, each by a quad of the reduction."""
    fragments = config.warps_m * config.frags_m * config.warps_n * config.frags_n
    return fragments * geo.taps[0] * geo.taps[1] * geo.quads


def copied_bytes(config: Config, geo: Geometry) -> int:
    """Of input and weights that a block copies to shared memory, with the border around an image."""
    staged = tile(config, geo)
    if geo.stem:
        pixels = staged.rows * staged.height * staged.columns * geo.stem
        return pixels + staged.weights * WORD_BYTES
    return geo.quads // config.chunk * (input_words(config, geo) + staged.weights) * WORD_BYTES
