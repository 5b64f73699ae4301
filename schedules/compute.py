"""What each operator computes, as tensor expressions over any storage format.  Integer only, and exact.

These are the meaning of the QNN dialect (its legalization) and the body of the portable schedule.  A ``Code`` reads
one int32 code of a logical ``(N, C, H, W)`` tensor; a ``Rescale`` maps an int32 value and its channel to an int64.
"""

from collections.abc import Callable, Sequence

from tvm import te, tirx
from tvm.ir import Expr

from hawqtvm.qnn.formats import BLOCK, CHUNK, WORD, Format
from schedules.workload import AvgPool2d, Conv2d, Dense, MaxPool2d

Code = Callable[..., Expr]
Rescale = Callable[[Expr, Expr], Expr]


def element(word: Expr, index: Expr, held: int = WORD) -> Expr:
    """Unsigned value ``index`` of those that words hold; the mask keeps it right whatever width TVM promotes to."""
    bits = 32 // held
    return (word >> (te.indexmod(index, held).astype("int32") * bits)) & ((1 << bits) - 1)


def reader(x: te.Tensor, fmt: Format) -> Code:
    def stored(n, c, h, w):
        if fmt.layout == "NCHW":
            return x[n, te.indexdiv(c, fmt.held), h, w]
        if fmt.layout == "HWNC":
            return x[h, w, n, te.indexdiv(c, fmt.held)]
        return x[n, te.indexdiv(c, BLOCK), h, w, te.indexdiv(te.indexmod(c, BLOCK), fmt.held)]

    if fmt.held > 1:
        return lambda n, c, h, w: element(stored(n, c, h, w), c, fmt.held)
    return lambda n, c, h, w: stored(n, c, h, w).astype("int32")


def write(code: Code, dims: Sequence[int], fmt: Format, name: str = "out") -> te.Tensor:
    """Stores codes; those past C, and in HWNC past N, are 0."""
    batch, channels = dims[:2]
    whole = {"NCHW": fmt.held, "NCHW16c": BLOCK, "HWNC": CHUNK}[fmt.layout]
    shape = fmt.shape(dims)
    more_rows = fmt.layout == "HWNC" and shape[2] > batch

    def guarded(n, c, h, w):
        inside = [c < channels] * (channels % whole > 0) + [n < batch] * more_rows
        if not inside:
            return code(n, c, h, w)
        return tirx.if_then_else(tirx.all(*inside), code(n, c, h, w), tirx.const(0, "int32"))

    def value(n, c, h, w):  # c is the first channel of the stored element
        if fmt.held == 1:
            return guarded(n, c, h, w).astype(fmt.dtype)
        word = guarded(n, c, h, w)
        for i in range(1, fmt.held):
            word = word | (guarded(n, c + i, h, w) << (32 // fmt.held * i))
        return word

    step = fmt.held
    if fmt.layout == "NCHW":
        return te.compute(shape, lambda n, c, h, w: value(n, c * step, h, w), name=name)
    if fmt.layout == "HWNC":
        return te.compute(shape, lambda h, w, n, c: value(n, c * step, h, w), name=name)
    return te.compute(shape, lambda n, b, h, w, i: value(n, b * BLOCK + i * step, h, w), name=name)


def dyadic(b: Expr, c: Expr, value: Expr) -> Expr:
    """``(value * b + 2**(c-1)) >> c`` in int64."""
    c64 = c.astype("int64")
    one = tirx.const(1, "int64")
    return (value.astype("int64") * b.astype("int64") + (one << (c64 - one))) >> c64


def clip(value: Expr, lo: int, hi: int) -> Expr:
    """int64 -> int32 in [lo, hi]."""
    low, high = tirx.const(lo, "int64"), tirx.const(hi, "int64")
    return tirx.max(tirx.min(value, high), low).astype("int32")


def channel_rescale(b: te.Tensor, c: te.Tensor) -> Rescale:
    """``b``, ``c`` int32 of one number a channel, or of one number in all."""
    single = int(b.shape[0]) == 1
    return lambda value, channel: dyadic(b[0 if single else channel], c[0 if single else channel], value)


def scalar_rescale(b: int, c: int) -> Rescale:
    return lambda value, _: dyadic(tirx.const(b, "int32"), tirx.const(c, "int32"), value)


def padded(code: Code, dims: Sequence[int], padding: Sequence[int], fill: int) -> te.Tensor:
    """int32 codes with a border of ``fill``."""
    n, c, h, w = dims
    top, left, bottom, right = padding

    def at(i, j, y, x):
        inside = tirx.all(y >= top, y < h + top, x >= left, x < w + left)
        return tirx.if_then_else(inside, code(i, j, y - top, x - left), tirx.const(fill, "int32"))

    shape = (n, c, h + top + bottom, w + left + right)
    return te.compute(shape, at if any(padding) else code, name="padded")


def weight_reader(weight: te.Tensor, bits: int) -> Code:
    """``(o, i, ...)`` -> int32; 4-bit weights are words along the input channels, sign-extended by xor and subtract."""
    if bits == 8:
        return lambda o, i, *tap: weight[(o, i, *tap)].astype("int32")
    return lambda o, i, *tap: (element(weight[(o, te.indexdiv(i, WORD), *tap)], i) ^ 8) - 8


def conv2d_sum(workload: Conv2d, x: te.Tensor, weight: te.Tensor, bias: te.Tensor) -> te.Tensor:
    """int32 accumulators of ``sum_dims``, bias included; ``weight`` as :func:`weight_reader` takes it."""
    inputs = workload.in_channels // workload.groups
    outputs = workload.out_channels // workload.groups
    image = padded(reader(x, workload.x), workload.x_dims, workload.padding, workload.x_zero_point)
    taps = weight_reader(weight, workload.weight_bits)
    ri, ry, rx = (
        te.reduce_axis((0, e), name)
        for e, name in ((inputs, "ri"), (workload.kernel[0], "ry"), (workload.kernel[1], "rx"))
    )
    (sy, sx), (dy, dx) = workload.strides, workload.dilation

    def term(n, o, y, z):
        channel = te.indexdiv(o, outputs) * inputs + ri if workload.groups > 1 else ri
        return image[n, channel, y * sy + ry * dy, z * sx + rx * dx] * taps(o, ri, ry, rx)

    total = te.compute(workload.sum_dims, lambda *at: te.sum(term(*at), [ri, ry, rx]), name="sum")
    return te.compute(workload.sum_dims, lambda n, o, y, z: total[n, o, y, z] + bias[o], name="accumulator")


def dense_sum(workload: Dense, x: te.Tensor, weight: te.Tensor, bias: te.Tensor) -> te.Tensor:
    """int32 ``(N, O, 1, 1)`` accumulators."""
    code, taps = reader(x, workload.x), weight_reader(weight, workload.weight_bits)
    ri = te.reduce_axis((0, workload.in_channels), "ri")
    total = te.compute(workload.out_dims, lambda n, o, y, z: te.sum(code(n, ri, y, z) * taps(o, ri), ri), name="sum")
    return te.compute(workload.out_dims, lambda n, o, y, z: total[n, o, y, z] + bias[o], name="accumulator")


def rescaled_codes(
    operands: Sequence[tuple[Code, int, Rescale]], dims: Sequence[int], zero_point: int, lo: int, hi: int
) -> te.Tensor:
    """``clip(sum of rescale(code - zero_point) + zero_point, lo, hi)``, int32, from (code, zero point, rescale)s."""

    def at(n, c, h, w):
        total = tirx.const(zero_point, "int64")
        for code, zero, rescale in operands:
            total = total + rescale(code(n, c, h, w) - zero, c)
        return clip(total, lo, hi)

    return te.compute(dims, at, name="codes")


def max_pool2d(code: Code, workload: MaxPool2d) -> te.Tensor:
    """int32; ``code`` reads what is pooled."""
    image = padded(code, workload.dims, workload.padding, workload.x.limits[0])
    ry, rx = (te.reduce_axis((0, k), name) for k, name in zip(workload.kernel, ("ry", "rx"), strict=True))
    (sy, sx), (dy, dx) = workload.strides, workload.dilation
    return te.compute(
        workload.out_dims,
        lambda n, c, y, z: te.max(image[n, c, y * sy + ry * dy, z * sx + rx * dx], [ry, rx]),
        name="maximum",
    )


def avg_pool2d_sum(workload: AvgPool2d, x: te.Tensor) -> te.Tensor:
    """int32 sums of ``q - x_zero_point``."""
    image = padded(reader(x, workload.x), workload.dims, workload.padding, workload.x_zero_point)
    ry, rx = (te.reduce_axis((0, k), name) for k, name in zip(workload.kernel, ("ry", "rx"), strict=True))
    sy, sx = workload.strides
    return te.compute(
        workload.out_dims,
        lambda n, c, y, z: te.sum(image[n, c, y * sy + ry, z * sx + rx] - workload.x_zero_point, [ry, rx]),
        name="sum",
    )


def concat(codes: Sequence[Code], dims: Sequence[Sequence[int]]) -> Code:
    def at(n, c, h, w):
        start = sum(d[1] for d in dims[:-1])
        value = codes[-1](n, c - start, h, w)
        for code, d in zip(codes[-2::-1], dims[-2::-1], strict=True):
            end, start = start, start - d[1]
            value = tirx.if_then_else(c < end, code(n, c - start, h, w), value)
        return value

    return at
