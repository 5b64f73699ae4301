"""Requantization in 16-bit lanes, 32 numbers at a time: of 4-bit operands, whose accumulators are small.

Accumulators are packed to int16 first; what that saturates is clipped later in any case (``Epilogue.headroom16``).
Then two multiplications rescale them, as in :mod:`schedules.cpu.short`; where a c is below 33 they are doubled until
none is.
"""

from dataclasses import dataclass

import numpy as np
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import STORAGE
from schedules.cpu.codes import bytes_of_pairs, int16_pairs, load_bytes, pairs_of_bytes
from schedules.cpu.intrin import LANES, doubled, high_product, rounded_product, splat, view
from schedules.cpu.requantize import lift
from schedules.cpu.requantize_codes import bytes_to_bytes, requantize_bytes
from schedules.cpu.short import FAR, fits_short, is_short, rescale_bytes
from schedules.target import CpuTarget
from schedules.workload import Epilogue

GROUP = 4  # pixels of a vector of bytes
ROWS = 2  # of a channel table: the fields of NarrowScale


@dataclass(frozen=True)
class NarrowScale:
    """int16x32 in the order of vpackssdw: m, and ``2**(15-s)``."""

    multiplier: object
    rounding: object


def fits_narrow(epilogue: Epilogue) -> bool:
    """Whether the epilogue can be computed in 16-bit lanes."""
    residual = epilogue.residual
    return (
        lift(epilogue.min_shift) <= epilogue.headroom16
        and STORAGE[epilogue.out.code] == "uint8"
        and (residual is None or (not residual.format.packed and fits_short(residual)))
        and (epilogue.codes is None or bytes_to_bytes(epilogue.codes))
    )


def narrow_rows(epilogue: Epilogue, b: np.ndarray, c: np.ndarray) -> list[np.ndarray]:
    """``b``, ``c`` ``(blocks, 16)`` int64 -> the rows of a channel table that :class:`NarrowScale` is loaded from."""
    if not is_short(b):
        raise ValueError("a multiplier has more than 15 bits")
    shift = c + lift(epilogue.min_shift) - 32  # beyond FAR every product rounds to 0
    multiplier = np.where(shift > FAR, 0, b >> 16)
    rounding = 1 << (FAR - np.minimum(shift, FAR))
    return [_packed_order(values.astype("int16")) for values in (multiplier, rounding)]


def _packed_order(values: np.ndarray) -> np.ndarray:
    """``(blocks, 16)`` int16 -> ``(blocks, 16)`` int32: groups of four channels, each twice."""
    twice = np.repeat(values.reshape(-1, LANES // 4, 1, 4), 2, axis=2)
    return np.ascontiguousarray(twice).reshape(-1, 2 * LANES).view("int32")


def narrow_scale(rows: list) -> NarrowScale:
    """From the int32x16 rows of :func:`narrow_rows`."""
    return NarrowScale(*(T.bind(view("int16x32", row)) for row in rows))


def narrow_codes(
    target: CpuTarget, values: list, scale: NarrowScale, residual, pixels: list, neighbours: int, epilogue: Epilogue
) -> list[list]:
    """The vectors of each output, as :func:`schedules.cpu.epilogue.finish` makes them."""
    vectors = []
    for first in range(0, len(values), GROUP):
        terms = [
            _accumulators(target, pair, scale, epilogue) for pair in int16_pairs(target, values[first : first + GROUP])
        ]
        if epilogue.residual:
            codes = T.bind(load_bytes(residual, pixels[first : first + GROUP], neighbours))
            added = [rescale_bytes(target, pair, epilogue.residual) for pair in pairs_of_bytes(codes)]
            terms = [term + other for term, other in zip(terms, added, strict=True)]
        if epilogue.zero_point:
            terms = [term + splat(epilogue.zero_point, "int16", 2 * LANES) for term in terms]
        vectors.append(T.bind(bytes_of_pairs(target, terms, epilogue.lo, epilogue.hi)))
    return [vectors, requantize_bytes(target, vectors, epilogue.codes)] if epilogue.codes else [vectors]


def _accumulators(target: CpuTarget, values, scale: NarrowScale, epilogue: Epilogue):
    """int16x32, rescaled."""
    for _ in range(lift(epilogue.min_shift)):
        values = doubled(values)
    return rounded_product(target, high_product(target, values, scale.multiplier), scale.rounding)
