"""Hypothesis strategies of workloads, formats and values with the extremes that break kernels."""

import numpy as np
from hypothesis import strategies as st

from hawqtvm.qnn.formats import Format
from schedules.workload import Conv2d, Epilogue, Requantized, Rescaled

WIDE = 2**24  # int32 codes are clipped to this
BLOCKED = "NCHW16c"
INPUTS = [Format("uint8", BLOCKED), Format("uint4", BLOCKED), Format("uint4", BLOCKED, packed=True)]
OUTPUTS = [*INPUTS, Format("int16", BLOCKED), Format("int32", BLOCKED)]
WORDS = [Format("uint4", "HWNC", packed=True), *(Format(code, "HWNC") for code in ("uint8", "int16", "int32"))]
VALUES = ("random", "small", "most and least", "most and most", "alternating", "ends")


# with b = 2**30, c = 30: the accumulators themselves
SUMS = Epilogue(Format("int32", BLOCKED), 0, -WIDE, WIDE, 30)


def four_bit_conv(kernel: int, channels=20, size=(9, 11), out_channels=40, batch=2, strides=(1, 1), **fields) -> Conv2d:
    """A convolution of 4 bits whose output is as large as its input at stride 1."""
    fields = {"x": INPUTS[2], "epilogue": SUMS} | fields
    pad, shape = kernel // 2, (batch, channels, *size, out_channels)
    return Conv2d(*shape, (kernel, kernel), strides, (pad,) * 4, (1, 1), 1, x_zero_point=0, weight_bits=4, **fields)


def code_limits(format: Format) -> tuple[int, int]:
    return (-WIDE, WIDE) if format.code == "int32" else format.limits


def fill(rng, kind: str, low: int, high: int, shape, other: bool = False) -> np.ndarray:
    """Integers of low..high; ``other`` is the second factor of a product."""
    if kind == "most and least":
        return np.full(shape, low if other else high)
    if kind == "most and most":
        return np.full(shape, high)
    if kind == "alternating":
        return np.where(np.indices(shape).sum(0) % 2 == 0, low, high)
    if kind == "ends":
        return rng.choice([low, high], shape)
    if kind == "small":  # a rescaling far above 1 clips anything larger, and then no rounding shows
        low, high = max(low, -3), min(high, 3)
    return rng.integers(low, high + 1, shape)


@st.composite
def rescaled(draw, formats) -> Rescaled:
    format = draw(st.sampled_from(formats))
    low, high = format.limits
    zero = 0 if format.code == "int32" else draw(st.integers(max(low, -300), min(high, 300)))
    return Rescaled(format, zero, draw(multipliers()), draw(st.integers(24, 40)))


def multipliers():
    """``b``: its ends, the one that makes exact halves, any, and any of 15 bits."""
    short = st.integers(2**14, 2**15 - 1).map(lambda multiplier: multiplier << 16)
    return st.one_of(st.sampled_from([2**30, 2**31 - 1]), st.integers(2**30, 2**31 - 1), short)


@st.composite
def epilogues(draw, outputs=tuple(OUTPUTS), residuals=(*OUTPUTS, *WORDS)) -> Epilogue | None:
    if draw(st.integers(0, 7)) == 0:
        return None
    out = draw(st.sampled_from(outputs))
    low, high = code_limits(out)
    lo = draw(st.sampled_from([low, low + 3]))
    hi = draw(st.sampled_from([high, high - 2]))
    zero = draw(st.sampled_from([0, 0, 3]))
    residual = draw(st.none() | rescaled([f for f in residuals if f.layout == out.layout]))
    return Epilogue(out, zero, lo, hi, draw(st.sampled_from([24, 31, 32, 33, 34, 38])), residual)


@st.composite
def requantized(draw, y: Format, outputs) -> Requantized:
    """Codes ``y`` in another format, most often over about its whole range, so that every code occurs."""
    out = draw(st.sampled_from(outputs))
    (low, high), (least, most) = code_limits(y), code_limits(out)
    whole = 31 + round(np.log2((high - low) / (most - least)))
    c = draw(st.integers(whole - 1, whole + 2) | st.sampled_from([max(4, whole - 8), 24, 33, 40]))
    zero = 0 if y.code == "int32" else draw(st.sampled_from([0, low, high, 100]))
    lo = least + draw(st.sampled_from([0, 0, 2]))
    hi = most - draw(st.sampled_from([0, 0, 1]))
    operand = Rescaled(y, zero, draw(multipliers()), max(4, c))
    return Requantized(operand, out, draw(st.sampled_from([0, 0, 8, -3])), lo, hi)


def layer_constants(draw, rng, epilogue: Epilogue | None, weight: np.ndarray, most: int, kind: str, limit: int = 2**30):
    """Bias, ``b`` and ``c``; the bias brings accumulators near +-``limit`` when asked, never past it."""
    out_channels = weight.shape[0]
    reach = int(np.abs(weight.astype("int64")).reshape(out_channels, -1).sum(1).max(initial=0)) * most
    extent = draw(st.sampled_from([0, 1000, limit - reach]))
    bias = fill(rng, kind if kind in ("random", "ends") else "random", -extent, extent, out_channels).astype("int32")
    if epilogue is None:
        return bias, None, None
    b = np.where(rng.random(out_channels) < 0.3, 2**30, rng.integers(2**30, 2**31, out_channels)).astype("int32")
    c = rng.integers(epilogue.min_shift, min(epilogue.min_shift + draw(st.sampled_from([1, 6, 40])), 63), out_channels)
    return bias, b, c.astype("int32")


@st.composite
def windows(draw, pool: bool = False) -> dict:
    """Kernel, strides (larger than the kernel, too), uneven padding, dilation; height and width of one pixel or more.

    A pool's padding stays below its kernel, so that no window holds padding only.
    """
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)) | st.just((3, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    most = [k - 1 if pool else 3 for k in kernel]
    padding = draw(st.just((0, 0, 0, 0)) | st.tuples(*[st.integers(0, m) for m in most * 2]))
    if pool and any(padding):
        dilation = (1, 1)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    least = [max(1, r - padding[i] - padding[i + 2]) for i, r in enumerate(reach)]
    height, width = (draw(st.sampled_from([0, 0, 1, 2, 5])) + size for size in least)
    strides = draw(st.sampled_from([(1, 1), (2, 2), (1, 2), (5, 4)]))
    return {
        "height": height,
        "width": width,
        "kernel": kernel,
        "strides": strides,
        "padding": padding,
        "dilation": dilation,
    }
