"""Dyadic requantization of 16 int32 lanes: ``(v * b + 2**(c-1)) >> c`` exactly, without a 64-bit multiplier.

``vpmuldq`` multiplies the even int32 lanes; the odd ones are moved down first.  Two ways lead to the code:

- fast: all shifts are at least 33, so the rounding addend has no bits in the low half of the product and
  ``(v*b + 2**(c-1)) >> c == (hi(v*b) + 2**(c-33)) >> (c-32)``: one 32-bit add and shift for all 16 lanes.
  Where ``c`` is smaller, v is first clamped to ``+-2**(c-2)`` and shifted left by ``33 - c``: what the clamp changes is
  scaled to at least 2**28 either way, far outside of the codes it is clipped to later.
- wide: everything up to the clip stays in 64 bits.
"""

from dataclasses import dataclass

from tvm import tirx

from hawqtvm.qnn.formats import STORAGE
from schedules.cpu.intrin import LANES, pick, splat, view
from schedules.cpu.short import is_short
from schedules.workload import Epilogue, Rescaled

FAST_SHIFT = 33


@dataclass(frozen=True)
class Scale:
    """``b`` and ``c`` of 16 lanes, int32x16 each; the even lanes of ``b_odd`` hold the odd lanes of ``b``."""

    b: object
    b_odd: object
    shift: object  # c, or c - 32 for the fast way
    rounding: object = None  # 2**(c-33), only for the fast way
    lift: object = None  # max(0, 33 - c), only if there may be such lanes
    bound: object = None  # greatest |v| that can be lifted


def fits_fast(reach: int, b: int, c: int) -> bool:
    """Whether values up to ``reach`` can go the fast way: shifted left until ``c >= 33``, and a sum fits int32."""
    return reach << lift(c) < 2**31 and (reach * b >> c) + 1 < 2**30


def lift(c: int) -> int:
    """Left shift of a value that makes its ``c`` large enough for the fast way."""
    return max(0, FAST_SHIFT - c)


def fast_operand(operand: Rescaled) -> bool:
    return fits_fast(operand_reach(operand), operand.b, operand.c)


def operand_reach(operand: Rescaled) -> int:
    """The greatest ``|q - zero_point|``; int32 codes are clipped to +-2**24 where they are made."""
    low, high = (-(2**24), 2**24) if operand.format.code == "int32" else operand.format.limits
    return max(abs(low - operand.zero_point), abs(high - operand.zero_point))


def fast_epilogue(epilogue: Epilogue) -> bool:
    residual = epilogue.residual
    if residual and not fast_operand(residual):
        return False
    if not lifts(epilogue):
        return True
    added = operand_reach(residual) * residual.b >> residual.c if residual else 0
    return epilogue.min_shift >= 4 and max(-epilogue.lo, epilogue.hi, added) <= 2**26


def lifts(epilogue: Epilogue) -> bool:
    """Whether there may be channels whose accumulators must be clamped and shifted to go the fast way."""
    return epilogue.min_shift < FAST_SHIFT


def operand_term(q, operand: Rescaled, fast: bool):
    """int32x16 codes of an addition's operand -> a term of :func:`sum_of_terms`."""
    short = short_scale(operand) if fast else None
    if short:
        multiplier, offset, shift = short
        return (q * splat(multiplier, "int32") + splat(offset, "int32")) >> splat(shift, "int32"), None
    value = q - splat(operand.zero_point, "int32") if operand.zero_point else q
    return scalar_term(value, operand.b, operand.c, fast)


def short_scale(operand: Rescaled) -> tuple[int, int, int] | None:
    """``(m, r, s)`` with ``(q*m + r) >> s`` equal to the rescaled operand; None where that is not one vpmaddwd.

    That multiplies codes of at most 8 bits by an m below 2**15: ``b >> 16``, where b's lower half is 0.
    """
    shift = operand.c - 16
    if STORAGE[operand.format.code] != "uint8" or not is_short(operand.b) or not 1 <= shift <= 30:
        return None
    multiplier = operand.b >> 16
    return multiplier, (1 << (shift - 1)) - operand.zero_point * multiplier, shift


def scalar_term(value, b: int, c: int, fast: bool):
    """int32x16 and one scale for all its lanes -> a term of :func:`sum_of_terms`."""
    multiplier = splat(b, "int32")
    if not fast:
        return value, Scale(multiplier, multiplier, splat(c, "int32"))
    shift = lift(c)
    value = value << splat(shift, "int32") if shift else value
    c += shift
    return value, Scale(multiplier, multiplier, splat(c - 32, "int32"), splat(1 << (c - 33), "int32"))


def sum_of_terms(terms: list, zero_point: int, lo: int, hi: int, fast: bool):
    """``sum((v*b + 2**(c-1)) >> c) + zero_point`` of (value, Scale) terms; clipped to lo..hi unless fast."""
    if fast:
        total = _sum([_rescale_fast(value, scale) for value, scale in terms])
        return total + splat(zero_point, "int32") if zero_point else total
    pairs = [_rescale_wide(value, scale) for value, scale in terms]
    even, odd = (clip(_sum(side) + splat(zero_point, "int64", 8), lo, hi) for side in zip(*pairs, strict=True))
    lanes = [lane if lane % 2 == 0 else lane - 1 + LANES for lane in range(LANES)]
    return pick([view("int32x16", even), view("int32x16", odd)], lanes)


def clip(value, lo: int, hi: int):
    """``min(max(value, lo), hi)`` lane by lane."""
    dtype, _, lanes = str(value.ty.dtype).partition("x")
    return tirx.min(tirx.max(value, splat(lo, dtype, int(lanes))), splat(hi, dtype, int(lanes)))


def _sum(values):
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _even(vector):
    """The even int32 lanes, sign-extended: the form in which LLVM sees vpmuldq."""
    return (view("int64x8", vector) << splat(32, "int64", 8)) >> splat(32, "int64", 8)


def _odd(vector):
    return view("int64x8", vector) >> splat(32, "int64", 8)


def _products(value, scale: Scale):
    return _even(value) * _even(scale.b), _odd(value) * _even(scale.b_odd)


def _rescale_fast(value, scale: Scale | None):
    if scale is None:  # done already
        return value
    if scale.lift is not None:
        value = tirx.min(tirx.max(value, -scale.bound), scale.bound) << scale.lift
    even, odd = (view("int32x16", product) for product in _products(value, scale))
    high = pick([even, odd], [lane + 1 if lane % 2 == 0 else lane + LANES for lane in range(LANES)])
    return (high + scale.rounding) >> scale.shift


def _rescale_wide(value, scale: Scale):
    one = splat(1, "int64", 8)
    pairs = zip(_products(value, scale), (_even(scale.shift), _odd(scale.shift)), strict=True)
    return [(product + (one << (shift - one))) >> shift for product, shift in pairs]
