"""An epilogue's second output: the codes it has just packed, requantized before they leave the registers.

Codes of at most 8 bits go from bytes to bytes, 32 of them a multiplication; wider ones in int32 lanes, as
:mod:`schedules.cpu.requantize` does it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import STORAGE
from schedules.cpu.codes import pack_codes
from schedules.cpu.intrin import halves, splat, view
from schedules.cpu.requantize import clip, fast_operand, operand_term, sum_of_terms
from schedules.target import CpuTarget
from schedules.workload import Epilogue, Requantized

MOST = 2**16 - 1  # of a 16-bit lane
NEAR = 16  # multipliers tried above and below the scale: the bits a product loses decide where halves fall


@dataclass(frozen=True)
class Short:
    """``(((q * multiplier) >> 8) + offset) >> shift`` in uint16, the sum held to 0..MOST, then a clip to lo..hi."""

    multiplier: int
    offset: int
    shift: int


@cache
def short_form(codes: Requantized) -> Short | None:
    """Numbers that give every one of at most 256 codes its result; None if no numbers were found."""
    y = codes.y
    if STORAGE[y.format.code] != "uint8" or STORAGE[codes.out.code] != "uint8":
        return None
    low, high = y.format.limits
    q = np.arange(low, high + 1, dtype="int64")
    rescaled = ((q - y.zero_point) * y.b + (1 << (y.c - 1))) >> y.c
    wanted = np.clip(rescaled + codes.zero_point, codes.lo, codes.hi)
    for shift in range(15, -1, -1):
        floor = (y.b << (8 + shift)) >> y.c
        for multiplier in range(max(0, floor - NEAR), floor + NEAR + 1):
            product = q * multiplier >> 8
            # the clip hides a sum that is too small or too large
            least = ((wanted << shift) - product)[wanted > codes.lo].max(initial=-MOST)
            most = (((wanted + 1) << shift) - 1 - product)[wanted < codes.hi].min(initial=MOST)
            offset = int(min(max(0, least), most))
            found = np.clip(np.clip(product + offset, 0, MOST) >> shift, codes.lo, codes.hi)
            if multiplier <= MOST and abs(offset) <= MOST and np.array_equal(found, wanted):
                return Short(int(multiplier), offset, shift)
    return None


def requantize_codes(target: CpuTarget, values: list, vectors: list, epilogue: Epilogue) -> list:
    """The second output of an epilogue's int32x16 ``values``; ``vectors``, and the result, as of :func:`pack_codes`."""
    codes = epilogue.codes
    short = short_form(codes)
    if short:
        return [T.bind(_bytes(target, vector, short, codes)) for vector in vectors]
    fast = fast_operand(codes.y)
    terms = [operand_term(clip(value, epilogue.lo, epilogue.hi), codes.y, fast) for value in values]
    return pack_codes(
        target, [T.bind(sum_of_terms([t], codes.zero_point, codes.lo, codes.hi, fast)) for t in terms], codes
    )


def _bytes(target: CpuTarget, vector, short: Short, codes: Requantized):
    """uint8x64 -> uint8x64, the even and the odd bytes in the upper halves of 16-bit lanes."""
    pairs, byte = view("uint16x32", vector), splat(8, "uint16", 32)
    even, odd = (_lanes(target, half, short, codes) for half in (pairs << byte, pairs & splat(0xFF00, "uint16", 32)))
    return view("uint8x64", even | (odd << byte))


def _lanes(target: CpuTarget, upper, short: Short, codes: Requantized):
    factors = upper, splat(short.multiplier, "uint16", 32)
    if target.avx512:
        total = tirx.call_llvm_pure_intrin("uint16x32", "llvm.x86.avx512.pmulhu.w.512", *factors)
    else:
        total = halves("llvm.x86.avx2.pmulhu.w", "uint16x16", *factors)
    if short.offset:
        name = "llvm.uadd.sat" if short.offset > 0 else "llvm.usub.sat"
        total = tirx.call_llvm_pure_intrin("uint16x32", name, total, splat(abs(short.offset), "uint16", 32))
    total = total >> splat(short.shift, "uint16", 32)
    if codes.hi < MOST >> short.shift:
        total = tirx.min(total, splat(codes.hi, "uint16", 32))
    return tirx.max(total, splat(codes.lo, "uint16", 32)) if codes.lo > 0 else total
