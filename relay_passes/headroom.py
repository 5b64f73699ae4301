"""How far a layer's accumulators reach, proven from its own numbers, and what room that leaves in a kernel's lanes."""

import math

import numpy as np

from hawqtvm.qnn.dyadic import rescale
from schedules.cpu.short import is_short, rescaled_limits
from schedules.workload import MAX_HEADROOM, Rescaled

INT16 = 2**15 - 1


def headroom(channels: int, kernel: tuple[int, int], x_most: int, bits: int, bias: np.ndarray) -> int:
    """Bits to spare above any accumulator of a convolution, by its shape, its bits and its actual bias.

    ``channels``: that an output reads.  ``x_most``: the greatest input code.
    """
    most = channels * math.prod(kernel) * x_most << (bits - 1)
    most += int(np.abs(bias.astype("int64")).max())
    return next(room for room in range(MAX_HEADROOM, -1, -1) if room == 0 or most << room < 2**31)


def headroom16(
    weight: np.ndarray, bias: np.ndarray, x_most: int, b: np.ndarray, c: np.ndarray, low: int, high: int
) -> int:
    """The most bits k by which accumulators may be shifted left and then saturate to int16, with every code unchanged.

    At most ``MAX_HEADROOM``; -1 where they may not saturate at all, or where a ``b`` has more than its upper 15 bits.
    ``weight``: ``(O, ...)`` int8; ``bias``, ``b``, ``c``: ``(O,)``.  ``low``, ``high``: a rescaled accumulator at or
    beyond them gives the least or the greatest code, whatever is added to it.
    """
    if not is_short(b):
        return -1
    taps, bias = weight.reshape(len(weight), -1).astype("int64"), bias.astype("int64")
    least = bias + x_most * np.minimum(taps, 0).sum(1)
    most = bias + x_most * np.maximum(taps, 0).sum(1)
    for room in range(MAX_HEADROOM, -1, -1):
        bound = INT16 >> room
        below = (least >= -bound) | (rescale(-bound, b, c) <= low)
        above = (most <= bound) | (rescale(bound, b, c) >= high)
        if (below & above).all():
            return room
    return -1


def undecided(lo: int, hi: int, zero_point: int, residual: Rescaled | None) -> tuple[int, int]:
    """``low`` and ``high`` of :func:`headroom16`: rescaled accumulators at or beyond them are clipped to lo or hi."""
    least, most = rescaled_limits(residual) if residual else (0, 0)
    return lo - zero_point - most, hi - zero_point - least
