"""4-bit weights two in a byte, as they are stored, and back, as kernels multiply them or combinations of them."""

from collections.abc import Callable

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from schedules.cpu.intrin import argument, flat, load, signed_nibbles, store, task_loop, view


def pack_nibbles(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """int8 of -8..7, twice -> int8 bytes."""
    return ((low & 15) | (high << 4)).astype("int8")


def store_nibbles(packed, packed0, unpacked, unpacked0, size: int):
    """``size`` packed bytes, a multiple of 64: each 64 are the low nibbles of 64 int8 and the high ones of the next."""
    with T.serial(size // 64) as chunk:
        vector = T.bind(load(packed, packed0 + chunk * 64, "int8x64"))
        low, high = signed_nibbles(view("int32x16", vector))
        store(unpacked, unpacked0 + chunk * 128, low)
        store(unpacked, unpacked0 + chunk * 128 + 64, high)


def unpack_nibbles(rows: int, size: int):
    """PrimFunc ``(packed (rows, size), unpacked (rows, 2 * size))``, both int8; rows are independent tasks."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        arguments = argument("packed", (rows, size), "int8"), argument("unpacked", (rows, 2 * size), "int8")
        packed, unpacked = (flat(buffer) for buffer in arguments)
        with task_loop(rows) as row:
            store_nibbles(packed, row * size, unpacked, row * (2 * size), size)
    return builder.get()


def pack_vectors(arrays: np.ndarray) -> np.ndarray:
    """``(groups, vectors, arrays, 64)`` int8 -> ``(groups, bytes)``: of each array's every two neighbouring vectors
    64 bytes, the first in the low nibbles."""
    groups, _, count, vector = arrays.shape
    low, high = arrays.reshape(groups, -1, 2, count, vector).transpose(2, 0, 1, 3, 4)
    return np.ascontiguousarray(pack_nibbles(low, high).reshape(groups, -1))


def combine_vectors(groups: int, vectors: int, arrays: int, made: int, combine: Callable):
    """PrimFunc ``(packed, transformed)``, int8: from what :func:`pack_vectors` made to ``(groups, made, vectors, 64)``.

    ``combine(list of one vector of each array)`` are the ``made`` vectors in their place.  Groups are separate tasks.
    """
    size = vectors * arrays * 64 // 2, made * vectors * 64
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        arguments = argument("packed", (groups, size[0]), "int8"), argument("transformed", (groups, size[1]), "int8")
        packed, transformed = (flat(buffer) for buffer in arguments)
        with task_loop(groups) as group, T.serial(vectors // 2) as pair:
            source = T.bind(group * size[0] + pair * (arrays * 64))
            target = T.bind(group * size[1] + pair * 128)
            words = [T.bind(load(packed, source + number * 64, "int8x64")) for number in range(arrays)]
            for half, parts in enumerate(zip(*(signed_nibbles(view("int32x16", w)) for w in words), strict=True)):
                for number, vector in enumerate(combine([T.bind(part) for part in parts])):
                    store(transformed, target + half * 64 + number * vectors * 64, vector)
    return builder.get()
