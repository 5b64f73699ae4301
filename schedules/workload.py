"""What a kernel must compute: the workloads a schedule answers to.  All are frozen, hash and print.

Activations are logical ``(N, C, H, W)`` tensors of integer codes in a :class:`~hawqtvm.qnn.formats.Format`.
"""

from dataclasses import dataclass

from hawqtvm.qnn.formats import Format

MAX_HEADROOM = 2


def windows(
    dims: tuple[int, int, int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> tuple[int, int]:
    """Numbers of windows down and across; ``padding``: top, left, bottom, right."""
    top, left, bottom, right = padding
    extents = dims[2] + top + bottom, dims[3] + left + right
    return tuple((e - d * (k - 1) - 1) // s + 1 for e, d, k, s in zip(extents, dilation, kernel, strides, strict=True))


@dataclass(frozen=True)
class Rescaled:
    """Codes to be added or requantized: ``((q - zero_point) * b + 2**(c-1)) >> c``."""

    format: Format
    zero_point: int
    b: int
    c: int


@dataclass(frozen=True)
class Requantized:
    """The codes that an epilogue makes, once more in another format: ``clip(rescaled y + zero_point, lo, hi)``.

    ``y``: those codes, in the epilogue's own format.
    """

    y: Rescaled
    out: Format
    zero_point: int
    lo: int
    hi: int


@dataclass(frozen=True)
class Epilogue:
    """From an int32 accumulator (bias included) to an output code, HAWQ-V3 eq. 4, 5 and 7.

    ``y = clip(((acc * b + 2**(c-1)) >> c) [+ residual] + zero_point, lo, hi)``; ``b`` and ``c`` are int32 constants
    of one number for each output channel; ``min_shift`` is the least ``c``, known when the kernel is built.
    ``codes``: a second output, made of ``y``.  ``headroom16``: accumulators may be shifted left by that many bits, at
    most ``MAX_HEADROOM``, and then saturate to int16 without a change of any ``y``, and all ``b`` are multiples of
    2**16; -1 where that is not so.
    """

    out: Format
    zero_point: int
    lo: int
    hi: int
    min_shift: int
    residual: Rescaled | None = None
    codes: Requantized | None = None
    headroom16: int = -1

    @property
    def outputs(self) -> tuple[Format, ...]:
        return (self.out, self.codes.out) if self.codes else (self.out,)

    @property
    def formats(self) -> tuple[Format, ...]:
        """Of all tensors it writes and reads."""
        return (*self.outputs, self.residual.format) if self.residual else self.outputs


@dataclass(frozen=True)
class Pool:
    """The maximum of windows of a convolution's output; padding (top, left, bottom, right) never wins."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]


@dataclass(frozen=True)
class Conv2d:
    """Kernel arguments: ``x, *constants, [residual], out, [codes]``; ``constants`` are what the schedule makes of
    weights ``(O, C/groups, KH, KW)`` int8, bias ``(O,)`` int32 and the epilogue's ``b``, ``c`` ``(O,)`` int32.

    Without an epilogue the int32 accumulators leave as ``Format("int32")``.  Padding writes ``x_zero_point``;
    its share of the sum is already in the bias.  ``headroom``: every accumulator times ``2**headroom`` fits int32, at
    most ``MAX_HEADROOM``.  ``pool``: of the epilogue's codes; there is no residual then.
    """

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, left, bottom, right
    dilation: tuple[int, int]
    groups: int
    x: Format
    x_zero_point: int
    weight_bits: int
    epilogue: Epilogue | None = None
    headroom: int = 0
    pool: Pool | None = None

    @property
    def x_dims(self) -> tuple[int, int, int, int]:
        return (self.batch, self.in_channels, self.height, self.width)

    @property
    def sum_dims(self) -> tuple[int, int, int, int]:
        """Of the accumulators."""
        places = windows(self.x_dims, self.kernel, self.strides, self.padding, self.dilation)
        return (self.batch, self.out_channels, *places)

    @property
    def out_dims(self) -> tuple[int, int, int, int]:
        pool, dims = self.pool, self.sum_dims
        return (*dims[:2], *windows(dims, pool.kernel, pool.strides, pool.padding)) if pool else dims

    @property
    def macs(self) -> int:
        n, o, h, w = self.sum_dims
        return n * o * h * w * self.kernel[0] * self.kernel[1] * self.in_channels // self.groups


@dataclass(frozen=True)
class Dense:
    """``(N, C, 1, 1) x (O, C) -> (N, O, 1, 1)``; arguments as :class:`Conv2d`, weights ``(O, C)`` int8."""

    batch: int
    in_channels: int
    out_channels: int
    x: Format
    weight_bits: int
    epilogue: Epilogue | None = None

    @property
    def x_dims(self) -> tuple[int, int, int, int]:
        return (self.batch, self.in_channels, 1, 1)

    @property
    def out_dims(self) -> tuple[int, int, int, int]:
        return (self.batch, self.out_channels, 1, 1)

    @property
    def macs(self) -> int:
        return self.batch * self.in_channels * self.out_channels


@dataclass(frozen=True)
class Elementwise:
    """Requantize (one operand) or residual add (two): ``clip(sum of rescaled operands + zero_point, lo, hi)``.

    Kernel arguments: ``*operands, out``.
    """

    dims: tuple[int, int, int, int]
    operands: tuple[Rescaled, ...]
    out: Format
    zero_point: int
    lo: int
    hi: int

    @property
    def out_dims(self) -> tuple[int, int, int, int]:
        return self.dims


@dataclass(frozen=True)
class MaxPool2d:
    """Maximum of codes; padding never wins.  Kernel arguments: ``x, out``; both in format ``x``."""

    dims: tuple[int, int, int, int]
    x: Format
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]

    @property
    def out_dims(self) -> tuple[int, int, int, int]:
        return (*self.dims[:2], *windows(self.dims, self.kernel, self.strides, self.padding, self.dilation))


@dataclass(frozen=True)
class AvgPool2d:
    """int32 sum of ``q - x_zero_point`` (padding adds nothing), then ``b / 2**c`` with 1/n folded in, zero point, clip.

    Kernel arguments: ``x, out``.  Every window divides by the same n = KH * KW.
    """

    dims: tuple[int, int, int, int]
    x: Format
    x_zero_point: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    b: int
    c: int
    out: Format
    zero_point: int
    lo: int
    hi: int

    @property
    def out_dims(self) -> tuple[int, int, int, int]:
        return (*self.dims[:2], *windows(self.dims, self.kernel, self.strides, self.padding))


@dataclass(frozen=True)
class Concat:
    """Tensors of one format joined along the channels.  Kernel arguments: ``*operands, out``."""

    operands: tuple[tuple[int, int, int, int], ...]
    x: Format
    out: Format

    @property
    def out_dims(self) -> tuple[int, int, int, int]:
        n, _, h, w = self.operands[0]
        return (n, sum(dims[1] for dims in self.operands), h, w)


@dataclass(frozen=True)
class Reformat:
    """The same codes in another layout, or packed, or unpacked.  Kernel arguments: ``x, out``."""

    dims: tuple[int, int, int, int]
    x: Format
    out: Format

    @property
    def out_dims(self) -> tuple[int, int, int, int]:
        return self.dims
