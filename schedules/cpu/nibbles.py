"""4-bit weights two in a byte, as they are stored, and back, as kernels multiply them."""

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
