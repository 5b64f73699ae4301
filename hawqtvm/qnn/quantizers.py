"""Ranges, and the scales and zero points they give.  A tensor is ``S (q - Z)``."""

import numpy as np

METHODS = ("minmax", "percentile", "mse")
PERCENTILE = 99.99
# candidate ranges of the MSE search, as fractions of the full range
SHRINK = np.linspace(1.0, 0.3, 36)
# 22 bits in an int32: room for the worst sum of a layer and for a pool's sum of a thousand codes
WIDE_LIMITS = {"int16": 2**15 - 1, "int32": 2**21 - 1}
# the stream is never clipped by an image a little brighter than the calibration set; costs one bit of fifteen
WIDE_HEADROOM = 2.0


def activation_range(values: np.ndarray, method: str, bits: int) -> tuple[float, float]:
    """Range ``(lo, hi)``, lo <= 0 <= hi, of real ``values`` (any shape, float32) for unsigned ``bits``-bit codes."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if method == "percentile":
        tail = 100.0 - PERCENTILE
        low = min(float(np.percentile(values, tail)), 0.0) if low < 0 else 0.0
        high = max(float(np.percentile(values, PERCENTILE)), 0.0)
    elif method == "mse":
        errors = []
        for shrink in SHRINK:
            scale, zero = affine(low * shrink, high * shrink, bits)
            codes = np.clip(np.rint(values / scale) + zero, 0, 2**bits - 1)
            errors.append(float(np.square((codes - zero) * scale - values, dtype="float64").sum()))
        best = SHRINK[int(np.argmin(errors))]
        low, high = low * best, high * best
    return low, high


def affine(low: float, high: float, bits: int) -> tuple[float, int]:
    """Scale and zero point of unsigned codes over ``[low, high]``; zero is exactly representable."""
    scale = (high - low) / (2**bits - 1)
    if scale <= 0:
        return 1.0, 0
    return scale, int(np.clip(round(-low / scale), 0, 2**bits - 1))


def wide(low: float, high: float, code: str) -> tuple[float, int]:
    """Scale and zero point (0) of the residual stream's "int16", or "int32" whose codes keep to 22 bits."""
    reach = max(-low, high) * WIDE_HEADROOM
    return (reach / WIDE_LIMITS[code] if reach > 0 else 1.0), 0


def weight_scales(weight: np.ndarray, method: str, bits: int) -> np.ndarray:
    """Symmetric float64 scales ``(O,)`` of a float weight ``(O, ...)``; 0 for an all-zero output channel."""
    flat = np.abs(weight.reshape(weight.shape[0], -1).astype("float64"))
    limit = 2 ** (bits - 1) - 1
    scales = flat.max(1) / limit
    if method == "percentile":
        cut = np.percentile(flat, PERCENTILE, axis=1) / limit
        return np.where(cut > 0, cut, scales)  # a channel may hold almost only zeros
    if method == "minmax":
        return scales
    signed = weight.reshape(weight.shape[0], -1).astype("float64")
    best, least = scales.copy(), np.full(len(scales), np.inf)
    for shrink in SHRINK:
        trial = np.maximum(scales * shrink, np.finfo("float64").tiny)[:, None]
        error = np.square(np.clip(np.rint(signed / trial), -limit - 1, limit) * trial - signed).sum(1)
        best = np.where(error < least, scales * shrink, best)
        least = np.minimum(error, least)
    return best


def weight_codes(weight: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    """Signed ``bits``-bit codes, int8, of a float weight ``(O, ...)`` under positive ``scales`` ``(O,)``."""
    limit = 2 ** (bits - 1)
    codes = np.rint(weight.astype("float64") / scales.reshape(-1, *[1] * (weight.ndim - 1)))
    return np.clip(codes, -limit, limit - 1).astype("int8")
