"""Codes of bytes rescaled in 16-bit lanes, exactly: those multipliers have 15 bits, all in the upper half of ``b``.

With ``m = b >> 16`` and a code shifted up by as many bits as a lane has room for, so that ``s = c + bits - 32`` is at
least 1, ``(v*b + 2**(c-1)) >> c`` is ``((v*m >> 16) + 2**(s-1)) >> s``: vpmulhw by m, then vpmulhrsw by ``2**(15-s)``.
"""

import numpy as np

from hawqtvm.qnn.dyadic import rescale
from hawqtvm.qnn.formats import STORAGE
from schedules.cpu.intrin import LANES, high_product, rounded_product, splat, view
from schedules.target import CpuTarget
from schedules.workload import Rescaled

UPPER = 8  # bits by which a byte is shifted up in a lane's upper half
FAR = 15  # the greatest s


def is_short(b) -> bool:
    """Whether a multiplier, or all of an array, has no more than its upper 15 bits."""
    return not (b % 2**16).any() if hasattr(b, "any") else b % 2**16 == 0


def fits_short(operand: Rescaled) -> bool:
    """Whether codes can be rescaled in 16-bit lanes."""
    in_bytes = STORAGE[operand.format.code] == "uint8" and 0 <= operand.zero_point <= 255
    return in_bytes and is_short(operand.b) and 1 <= _shift(operand) <= FAR


def rescaled_limits(operand: Rescaled) -> tuple[int, int]:
    """What the least and the greatest code become."""
    codes = np.array(operand.format.limits) - operand.zero_point
    low, high = rescale(codes, operand.b, operand.c)
    return int(low), int(high)


def rescale_bytes(target: CpuTarget, upper, operand: Rescaled):
    """uint16x32 with codes in the upper bytes -> int16x32, rescaled: at most 2**13 either way."""
    lanes, room = 2 * LANES, _room(operand)
    multiplier, rounding = operand.b >> 16, 1 << (FAR - _shift(operand))
    if operand.zero_point:
        codes = view("int16x32", upper >> splat(UPPER - room, "uint16", lanes))
        signed = codes - splat(operand.zero_point << room, "int16", lanes)
        product = high_product(target, signed, splat(multiplier, "int16", lanes))
    else:
        product = view("int16x32", high_product(target, upper, splat(multiplier, "uint16", lanes)))
    return rounded_product(target, product, splat(rounding, "int16", lanes))


def _room(operand: Rescaled) -> int:
    """Bits by which a code is shifted up: one less where a zero point is subtracted, which may leave it negative."""
    return UPPER - (operand.zero_point != 0)


def _shift(operand: Rescaled) -> int:
    return operand.c + _room(operand) - 32
