"""How a tensor of integer codes lies in memory: its code type, its layout and whether 4-bit codes are packed."""

from dataclasses import dataclass

import numpy as np

from hawqtvm.qnn.packing import pack_words, unpack_words

STORAGE = {"uint4": "uint8", "uint8": "uint8", "int16": "int16", "int32": "int32"}
LIMITS = {"uint4": (0, 15), "uint8": (0, 255), "int16": (-(2**15), 2**15 - 1), "int32": (-(2**31), 2**31 - 1)}
BLOCK = 16
WORD = 8


@dataclass(frozen=True)
class Format:
    """Storage of a logical ``(N, C, H, W)`` tensor of codes.

    ``code``: "uint4", "uint8", "int16" or "int32", the codes' range.
    ``layout``: "NCHW", or "NCHW16c" = ``(N, ceil(C/16), H, W, 16)`` with the channels past C undefined.
    ``packed``: eight uint4 codes in an int32 along the channels, element 0 in the low bits; the channel axis
    becomes ``ceil(C/8)`` in NCHW and the inner axis 2 in NCHW16c.  Codes past C are 0 in packed NCHW.
    """

    code: str
    layout: str = "NCHW"
    packed: bool = False

    def __post_init__(self):
        if self.code not in STORAGE or self.layout not in ("NCHW", "NCHW16c") or (self.packed and self.code != "uint4"):
            raise ValueError(f"no such format: {self}")

    @property
    def dtype(self) -> str:
        """The storage's numpy dtype."""
        return "int32" if self.packed else STORAGE[self.code]

    @property
    def limits(self) -> tuple[int, int]:
        """The least and greatest code."""
        return LIMITS[self.code]

    def shape(self, dims: tuple[int, int, int, int]) -> tuple[int, ...]:
        """Storage shape of a tensor with logical dims ``(N, C, H, W)``."""
        n, c, h, w = dims
        if self.layout == "NCHW":
            return (n, -(-c // WORD) if self.packed else c, h, w)
        return (n, -(-c // BLOCK), h, w, BLOCK // WORD if self.packed else BLOCK)

    def store(self, codes: np.ndarray) -> np.ndarray:
        """``(N, C, H, W)`` integer codes -> contiguous storage of this format; channels past C are 0."""
        n, c, h, w = codes.shape
        step = BLOCK if self.layout == "NCHW16c" else WORD if self.packed else 1
        codes = np.pad(codes, ((0, 0), (0, -c % step), (0, 0), (0, 0)))
        if self.layout == "NCHW16c":
            codes = codes.reshape(n, -1, BLOCK, h, w).transpose(0, 1, 3, 4, 2)
        axis = 1 if self.layout == "NCHW" else 4
        stored = pack_words(codes, axis) if self.packed else codes.astype(self.dtype)
        return np.ascontiguousarray(stored)

    def load(self, stored: np.ndarray, channels: int) -> np.ndarray:
        """Storage of this format -> ``(N, C, H, W)`` codes; the inverse of :meth:`store`."""
        if self.packed:
            stored = unpack_words(stored, 1 if self.layout == "NCHW" else 4)
        if self.layout == "NCHW16c":
            n, blocks, h, w, _ = stored.shape
            stored = stored.transpose(0, 1, 4, 2, 3).reshape(n, blocks * BLOCK, h, w)
        return np.ascontiguousarray(stored[:, :channels])
