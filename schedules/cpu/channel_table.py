"""What a layer's epilogue needs of each output channel, as int32x16 rows: ``(O/16, rows, 16)`` int32.

Row 0 is the bias; with an epilogue the fields of :class:`Scale` or :class:`NarrowScale` follow, in their order.
"""

import numpy as np
from tvm.tirx.script.builder import ir as T

from schedules.cpu.intrin import LANES, load
from schedules.cpu.narrow import ROWS, NarrowScale, fits_narrow, narrow_rows, narrow_scale
from schedules.cpu.requantize import FAST_SHIFT, Scale, fast_epilogue, lifts
from schedules.workload import Epilogue

MAX_SHIFT = 62  # beyond it 2**(c-1) plus a product leaves int64


def table_rows(epilogue: Epilogue | None) -> int:
    if epilogue is None:
        return 1
    if fits_narrow(epilogue):
        return 1 + ROWS
    if not fast_epilogue(epilogue):
        return 4
    return 7 if lifts(epilogue) else 5


def channel_table(blocks: int, epilogue: Epilogue | None, bias, b, c) -> np.ndarray:
    """``bias``, ``b``, ``c`` ``(O,)`` int32 -> ``(blocks, rows, 16)`` int32; no ``b``, ``c`` without an epilogue."""

    def blocked(values, fill=0):
        full = np.full(blocks * LANES, fill, "int64")
        full[: len(values)] = values
        return full.reshape(blocks, LANES)

    rows = [blocked(bias)]
    if epilogue:
        if min(c) < max(epilogue.min_shift, 1) or max(c) > MAX_SHIFT:
            raise ValueError(f"shifts {min(c)}..{max(c)} are outside {epilogue.min_shift}..{MAX_SHIFT}")
        b, c = blocked(b), blocked(c, FAST_SHIFT)
    if epilogue and fits_narrow(epilogue):
        rows += narrow_rows(epilogue, b, c)
    elif epilogue:
        b_odd = b.reshape(blocks, -1, 2)[..., ::-1].reshape(blocks, LANES)
        lift = np.maximum(0, FAST_SHIFT - c)
        fast = [b, b_odd, c + lift - 32, 1 << (c + lift - FAST_SHIFT), lift, (2**31 >> lift) - 1]
        rows += fast[: table_rows(epilogue) - 1] if fast_epilogue(epilogue) else [b, b_odd, c]
    return np.ascontiguousarray(np.stack(rows, axis=1).astype("int32"))


def load_bias(table, epilogue: Epilogue | None, block):
    """int32x16 of a channel block, from the flat table."""
    return T.bind(load(table, block * (table_rows(epilogue) * LANES), "int32x16"))


def load_scale(table, epilogue: Epilogue, block) -> Scale | NarrowScale:
    count = table_rows(epilogue)
    rows = [T.bind(load(table, (block * count + row) * LANES, "int32x16")) for row in range(1, count)]
    return narrow_scale(rows) if fits_narrow(epilogue) else Scale(*rows)
