"""From packed 4-bit weights to the right operands of the seven products, when a library is loaded.

Packed: for each group of output channels and each two neighbouring vectors of ``(block, word, oc_tile) x (16, 4)`` the
quarters B11, B12, B21, B22, 64 bytes each, the first vector in the low nibbles.
Transformed: ``(product, block, word, oc_tile, 16, 4)`` for each group.
"""

import numpy as np

from hawqtvm.qnn.formats import BLOCK
from schedules.cpu.intrin import LANES
from schedules.cpu.nibbles import combine_vectors, pack_vectors
from schedules.cpu.strassen_geometry import HALF, PRODUCTS, VECTOR, Geometry

QUARTERS = 4


def transformed_shape(geo: Geometry) -> tuple[int, int]:
    return geo.groups, geo.matrix_vectors * PRODUCTS * VECTOR


def quarters(geo: Geometry, weight: np.ndarray) -> np.ndarray:
    """``(O, C)`` int8, whole blocks -> ``(group, block, word, oc_tile, half of C, half of O, 16, 4)``."""
    split = weight.reshape(geo.groups, 2, geo.config.oc_tile, LANES, -1, BLOCK)
    if geo.workload.x.packed:
        split = split.reshape(*split.shape[:-1], HALF // 4, 4, 2)
        return split.transpose(0, 4, 5, 2, 7, 1, 3, 6)
    split = split.reshape(*split.shape[:-1], 2, HALF // 4, 4)
    return split.transpose(0, 4, 6, 2, 5, 1, 3, 7)


def pack(geo: Geometry, split: np.ndarray) -> np.ndarray:
    """What :func:`quarters` made, packed."""
    return pack_vectors(split.reshape(geo.groups, -1, QUARTERS, VECTOR))


def operands(b11, b12, b21, b22) -> list:
    """The right operands, of arrays or vectors, in the order in which the kernel multiplies them."""
    t1 = b12 - b11
    t2 = b22 - t1
    return [b11, b21, t2, b22 - b12, b21 - t2, t1, b22]


def starts(split: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """What the kernel adds to the sums of products, ``(group, 4, oc_tile, 16)`` int32, wrapped: see the kernel.

    ``bias (O,)`` int64, whole blocks.
    """
    sums = split.astype("int64").sum((1, 2, 7)).transpose(2, 3, 0, 1, 4).reshape(QUARTERS, -1)
    _, _, t2, t3, _, _, b22 = operands(*sums)
    upper, lower = bias.reshape(len(split), 2, -1).transpose(1, 0, 2).reshape(2, -1)
    rows = [upper, -15 * (t2 + t3), lower - upper - 15 * (t2 + t3), 15 * t3 - 30 * b22]
    shape = len(split), split.shape[3], LANES
    return np.ascontiguousarray(np.stack([row.reshape(shape) for row in rows], axis=1).astype("int32"))


def transform(geo: Geometry):
    """PrimFunc ``(packed, transformed)``, int8; groups are independent tasks."""
    return combine_vectors(geo.groups, geo.matrix_vectors, QUARTERS, PRODUCTS, lambda vectors: operands(*vectors))
