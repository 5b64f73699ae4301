"""An epilogue's second output: the codes it has just packed, requantized before they leave the registers.

Codes of at most 8 bits go from bytes to bytes, 32 of them a multiplication; wider ones in int32 lanes, as
:mod:`schedules.cpu.requantize` does it.
"""

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import STORAGE
from schedules.cpu.codes import pack_codes
from schedules.cpu.intrin import splat, view
from schedules.cpu.requantize import clip, fast_operand, operand_term, sum_of_terms
from schedules.cpu.short import UPPER, fits_short, rescale_bytes, rescaled_limits
from schedules.target import CpuTarget
from schedules.workload import Epilogue, Requantized


def bytes_to_bytes(codes: Requantized) -> bool:
    """Whether :func:`requantize_bytes` makes them."""
    return STORAGE[codes.out.code] == "uint8" and fits_short(codes.y)


def requantize_codes(target: CpuTarget, values: list, vectors: list, epilogue: Epilogue) -> list:
    """The second output of an epilogue's int32x16 ``values``; ``vectors``, and the result, as of :func:`pack_codes`."""
    codes = epilogue.codes
    if bytes_to_bytes(codes):
        return requantize_bytes(target, vectors, codes)
    fast = fast_operand(codes.y)
    terms = [operand_term(clip(value, epilogue.lo, epilogue.hi), codes.y, fast) for value in values]
    return pack_codes(
        target, [T.bind(sum_of_terms([t], codes.zero_point, codes.lo, codes.hi, fast)) for t in terms], codes
    )


def requantize_bytes(target: CpuTarget, vectors: list, codes: Requantized) -> list:
    """The second output of codes packed in ``vectors`` of uint8x64; packed alike."""
    return [T.bind(_bytes(target, vector, codes)) for vector in vectors]


def _bytes(target: CpuTarget, vector, codes: Requantized):
    """The even and the odd bytes in the upper halves of 16-bit lanes; clipped as bytes where none leaves one before."""
    pairs, byte = view("uint16x32", vector), splat(UPPER, "uint16", 32)
    uppers = (pairs << byte, pairs & splat(0xFF00, "uint16", 32))
    lanes = [rescale_bytes(target, upper, codes.y) for upper in uppers]
    low, high = (value + codes.zero_point for value in rescaled_limits(codes.y))
    if codes.zero_point:
        lanes = [lane + splat(codes.zero_point, "int16", 32) for lane in lanes]
    if low < 0 or high > 255:
        lanes = [_clip(lane, codes, low, high) for lane in lanes]
        low, high = codes.lo, codes.hi
    even, odd = (view("uint16x32", lane) for lane in lanes)
    return _clip(view("uint8x64", even | (odd << byte)), codes, low, high)


def _clip(vector, codes: Requantized, low: int, high: int):
    """To lo..hi, what is known to be in low..high."""
    dtype, _, count = str(vector.ty.dtype).rpartition("x")
    if high > codes.hi:
        vector = tirx.min(vector, splat(codes.hi, dtype, int(count)))
    return tirx.max(vector, splat(codes.lo, dtype, int(count))) if low < codes.lo else vector
