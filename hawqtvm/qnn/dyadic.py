"""Dyadic numbers ``b / 2**c``: the only way a scale enters the integer program (HAWQ-V3 eq. 4-5)."""

import numpy as np

from hawqtvm.errors import BadInput

# past 2**30 - 1/4 a ratio rounds up to 2**30, whose c would be 0
LEAST, MOST = 2.0**-32, 2.0**30 - 1
SHORT_BITS = 15


def dyadic(ratios: np.ndarray | float, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Positive float64 ``ratios`` -> int64 arrays ``(b, c)`` with ``b / 2**c`` nearest to each.

    ``b`` is in [2**30, 2**31) and ``c`` in [1, 62], so the relative error is at most 2**-31 and the product with any
    int32 fits an int64.  A ratio of exactly 1 becomes ``(2**30, 30)``, the identity.
    Raises BadInput naming ``name`` when a ratio is not in [2**-32, 2**30 - 1].
    """
    ratios = np.asarray(ratios, "float64")
    outside = ~((ratios >= LEAST) & (ratios <= MOST))  # NaN is outside, too
    if outside.any():
        raise BadInput(
            f"{name}: the rescaling factor {ratios[outside][0]:g} has no dyadic number; check the layer's weights and "
            "ranges"
        )
    mantissa, exponent = np.frexp(ratios)
    b = np.rint(np.ldexp(mantissa, 31)).astype("int64")
    carry = b == 2**31
    b = np.where(carry, 2**30, b)
    return b, 31 - (exponent.astype("int64") + carry)


def shortened(ratios: np.ndarray) -> np.ndarray:
    """The nearest numbers of 15 significant bits, whose ``b`` are multiples of 2**16: a kernel may multiply in 16 bits.

    The relative error is at most 2**-15, 1/128 of a code of 8 bits.
    """
    mantissa, exponent = np.frexp(ratios)
    return np.ldexp(np.rint(np.ldexp(mantissa, SHORT_BITS)), exponent - SHORT_BITS)


def rescale(values: np.ndarray, b: np.ndarray | int, c: np.ndarray | int) -> np.ndarray:
    """``(values * b + 2**(c-1)) >> c`` in int64: multiplication by ``b / 2**c``, rounded half up."""
    b, c = np.asarray(b, "int64"), np.asarray(c, "int64")
    return (np.asarray(values, "int64") * b + (np.int64(1) << (c - 1))) >> c


def rescaled_bound(bound: int, b: int, c: int) -> int:
    """The largest ``abs(rescale(v, b, c))`` over ``abs(v) <= bound``, in Python's integers of any size."""
    return (bound * b + (1 << (c - 1))) >> c
