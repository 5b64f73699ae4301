"""Where a Tensor Core convolution's operands lie: fragments, taps and what a block stages, known when it is built.

A fragment is 8 rows, neighbouring output pixels times images, by one *quad* of four int32 words: 16 or 32 channels of a
pixel.  A stem, of few channels, has a pixel in one word, and four neighbouring columns are its quad.
"""

from dataclasses import dataclass
from math import gcd

from hawqtvm.qnn.formats import CHUNK, ROWS, fragment_rows
from schedules.workload import Conv2d

QUAD = 4  # words
STEM_CHANNELS = 4


@dataclass(frozen=True)
class Axis:
    """Height or width, on the lattice of the input pixels that any output needs: every ``step``-th.

    Output ``o`` reads lattice points ``o * stride + k * dilation``; point ``u`` is pixel ``u * step - before``.
    """

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    step: int
    before: int

    def points(self, outputs: int) -> int:
        """Lattice points under neighbouring outputs."""
        return (outputs - 1) * self.stride + (self.kernel - 1) * self.dilation + 1


def _axis(size: int, out: int, kernel: int, stride: int, dilation: int, before: int) -> Axis:
    step = gcd(stride, dilation) if kernel > 1 else stride
    return Axis(size, out, kernel, stride // step, dilation // step, step, before)


@dataclass(frozen=True)
class Geometry:
    """``y`` and ``x``: the axes.  ``images``: stored, of which a fragment has ``rows``, beside ``8 // rows`` pixels.

    ``quads``: of a tap of the reduction, which is a kernel position, or four neighbouring ones of a stem's row.
    ``out_channels``: as stored.
    """

    y: Axis
    x: Axis
    images: int
    rows: int
    quads: int
    taps: tuple[int, int]
    out_channels: int
    stem: int  # channels of a stem, else 0

    @property
    def pixels(self) -> int:
        """Neighbouring output pixels of a fragment."""
        return ROWS // self.rows

    @property
    def words(self) -> int:
        """Of an input pixel, one image's."""
        return 1 if self.stem else self.quads * QUAD


def is_stem(workload: Conv2d) -> bool:
    """So few channels that a quad of one pixel would be mostly zeros: the kernel takes plain NCHW."""
    return workload.in_channels <= STEM_CHANNELS and workload.x.code == "uint8"


def geometry(workload: Conv2d) -> Geometry:
    _, out_channels, out_height, out_width = workload.out_dims
    (kh, kw), (top, left, *_) = workload.kernel, workload.padding
    stem, images = is_stem(workload), fragment_rows(workload.batch)
    y = _axis(workload.height, out_height, kh, workload.strides[0], workload.dilation[0], top)
    x = _axis(workload.width, out_width, kw, workload.strides[1], workload.dilation[1], left)
    if not stem and workload.kernel == workload.strides == (1, 1) and not any(workload.padding):
        # pixels are independent: one long row leaves no tails at the edge
        y, x = _axis(1, 1, 1, 1, 1, 0), _axis(y.size * x.size, y.out * x.out, 1, 1, 1, 0)
    codes = QUAD * (8 if workload.x.code == "uint4" else 4)
    return Geometry(
        y=y,
        x=x,
        images=images,
        rows=min(images, ROWS),
        quads=1 if stem else _round(workload.in_channels, CHUNK) // codes,
        taps=(kh, -(-kw // QUAD) if stem else kw),
        out_channels=_round(out_channels, CHUNK),
        stem=workload.in_channels if stem else 0,
    )


def _round(number: int, step: int) -> int:
    return -(-number // step) * step
