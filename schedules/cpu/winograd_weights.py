"""From packed 4-bit taps to the weights of a bilinear convolution's products, when a library is loaded.

Packed: for each group of ``oc_tile`` blocks and each two neighbouring vectors of ``(slice, word, oc_tile) x (16, 4)``,
the nine taps, 64 bytes each, the first vector in the low nibbles.  Transformed: ``(row combination, column
combination, slice, word, oc_tile, 16, 4)`` for each group.
"""

from collections.abc import Iterator

import numpy as np
from tvm.tirx.script.builder import ir as T

from schedules.cpu.bilinear import TAPS
from schedules.cpu.intrin import LANES
from schedules.cpu.nibbles import combine_vectors, pack_vectors
from schedules.cpu.winograd_geometry import VECTOR, Geometry


def group_vectors(geo: Geometry) -> int:
    """Vectors of one tap of a group of output channels."""
    return geo.in_blocks * 4 * geo.config.oc_tile


def transformed_shape(geo: Geometry) -> tuple[int, int]:
    return geo.groups, geo.matrices * group_vectors(geo) * VECTOR


def pack(geo: Geometry, weight: np.ndarray) -> np.ndarray:
    """``(O, C, 3, 3)`` int8, whole blocks of channels in the order of the slices."""
    ordered = weight.reshape(geo.groups, geo.config.oc_tile, LANES, -1, 4, TAPS**2).transpose(0, 3, 1, 5, 2, 4)
    return pack_vectors(ordered.reshape(geo.groups, -1, TAPS**2, VECTOR))


def transform(geo: Geometry):
    """PrimFunc ``(packed, transformed)``, int8; groups are independent tasks."""
    return combine_vectors(geo.groups, group_vectors(geo), TAPS**2, geo.matrices, lambda taps: _combinations(geo, taps))


def _combinations(geo: Geometry, taps: list) -> Iterator:
    """One vector of every matrix of a group."""
    for row in geo.rows.weights:
        sums = [T.bind(_sum(taps[j::TAPS], row)) for j in range(TAPS)]
        for column in geo.columns.weights:
            yield _sum(sums, column)


def _sum(terms: list, factors: tuple[int, ...]):
    """Of vectors of bytes, each once, twice or not at all; one is positive."""
    positive = [term for term, factor in zip(terms, factors, strict=True) for _ in range(factor)]
    total = positive[0]
    for term in positive[1:]:
        total = total + term
    for term in (term for term, factor in zip(terms, factors, strict=True) if factor < 0):
        total = total - term
    return total
