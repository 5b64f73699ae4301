"""Eight 4-bit values in an int32 word, element 0 in the low bits."""

import numpy as np

SHIFTS = 4 * np.arange(8, dtype="uint32")


def pack_words(values: np.ndarray, axis: int) -> np.ndarray:
    """4-bit values (signed or unsigned) -> int32 words, ``axis`` 8 times shorter; the last word is filled up with 0."""
    nibbles = np.moveaxis(values.astype("int64") & 15, axis, -1).astype("uint32")
    nibbles = np.pad(nibbles, [(0, 0)] * (nibbles.ndim - 1) + [(0, -nibbles.shape[-1] % 8)])
    words = (nibbles.reshape(*nibbles.shape[:-1], -1, 8) << SHIFTS).sum(-1, dtype="uint32").view("int32")
    return np.ascontiguousarray(np.moveaxis(words, -1, axis))


def unpack_words(words: np.ndarray, axis: int, signed: bool = False) -> np.ndarray:
    """int32 words -> values 0..15 as uint8, or -8..7 as int8 when ``signed``; that axis 8 times longer."""
    words = np.ascontiguousarray(np.moveaxis(words, axis, -1)).view("uint32")
    nibbles = ((words[..., None] >> SHIFTS) & 15).astype("uint8").reshape(*words.shape[:-1], -1)
    values = ((nibbles ^ 8).astype("int8") - np.int8(8)) if signed else nibbles
    return np.ascontiguousarray(np.moveaxis(values, -1, axis))
