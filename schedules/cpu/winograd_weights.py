"""From packed 4-bit taps to the weights of a bilinear convolution's products, when a library is loaded.

Packed: for each group of ``oc_tile`` blocks and each two neighbouring vectors of ``(slice, word, oc_tile) x (16, 4)``,
the nine taps, 64 bytes each, the first vector in the low nibbles.  Transformed: ``(row combination, column
combination, slice, word, oc_tile, 16, 4)`` for each group.
"""

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from schedules.cpu.bilinear import TAPS
from schedules.cpu.intrin import LANES, argument, flat, load, signed_nibbles, store, task_loop, view
from schedules.cpu.nibbles import pack_nibbles
from schedules.cpu.winograd_geometry import VECTOR, Geometry


def group_vectors(geo: Geometry) -> int:
    """Vectors of one tap of a group of output channels."""
    return geo.in_blocks * 4 * geo.config.oc_tile


def packed_shape(geo: Geometry) -> tuple[int, int]:
    return geo.groups, group_vectors(geo) * TAPS**2 * VECTOR // 2


def transformed_shape(geo: Geometry) -> tuple[int, int]:
    return geo.groups, geo.matrices * group_vectors(geo) * VECTOR


def pack(geo: Geometry, weight: np.ndarray) -> np.ndarray:
    """``(O, C, 3, 3)`` int8, whole blocks of channels in the order of the slices."""
    ordered = weight.reshape(geo.groups, geo.config.oc_tile, LANES, -1, 4, TAPS**2).transpose(0, 3, 1, 5, 2, 4)
    low, high = ordered.reshape(geo.groups, -1, 2, TAPS**2, VECTOR).transpose(2, 0, 1, 3, 4)
    return np.ascontiguousarray(pack_nibbles(low, high).reshape(packed_shape(geo)))


def transform(geo: Geometry):
    """PrimFunc ``(packed, transformed)``, int8; groups are independent tasks."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        arguments = (
            argument("packed", packed_shape(geo), "int8"),
            argument("transformed", transformed_shape(geo), "int8"),
        )
        packed, transformed = (flat(buffer) for buffer in arguments)
        with task_loop(geo.groups) as group, T.serial(group_vectors(geo) // 2) as pair:
            source = T.bind(group * packed_shape(geo)[1] + pair * (TAPS**2 * VECTOR))
            target = T.bind(group * transformed_shape(geo)[1] + pair * (2 * VECTOR))
            taps = [T.bind(load(packed, source + tap * VECTOR, "int8x64")) for tap in range(TAPS**2)]
            halves = zip(*(signed_nibbles(view("int32x16", tap)) for tap in taps), strict=True)
            for number, half in enumerate(halves):
                _combinations(geo, [T.bind(tap) for tap in half], transformed, target + number * VECTOR)
    return builder.get()


def _combinations(geo: Geometry, taps: list, transformed, target):
    """One vector of every matrix of a group."""
    matrix = group_vectors(geo) * VECTOR
    for r, row in enumerate(geo.rows.weights):
        sums = [T.bind(_sum(taps[j::TAPS], row)) for j in range(TAPS)]
        for q, column in enumerate(geo.columns.weights):
            store(transformed, target + (r * len(geo.columns.weights) + q) * matrix, _sum(sums, column))


def _sum(terms: list, factors: tuple[int, ...]):
    """Of vectors of bytes, each once, twice or not at all; one is positive."""
    positive = [term for term, factor in zip(terms, factors, strict=True) for _ in range(factor)]
    total = positive[0]
    for term in positive[1:]:
        total = total + term
    for term in (term for term, factor in zip(terms, factors, strict=True) if factor < 0):
        total = total - term
    return total
