"""How a tensor of integer codes lies in memory: its code type, its layout and whether 4-bit codes are packed."""

from dataclasses import dataclass

import numpy as np

from hawqtvm.qnn.packing import pack_words, unpack_words

STORAGE = {"uint4": "uint8", "uint8": "uint8", "int16": "int16", "int32": "int32"}
LIMITS = {"uint4": (0, 15), "uint8": (0, 255), "int16": (-(2**15), 2**15 - 1), "int32": (-(2**31), 2**31 - 1)}
BLOCK = 16
WORD = 8  # uint4 codes of an int32
BYTES = 4  # uint8 codes of an int32
ROWS = 8  # of a Tensor Core fragment: what the batch of HWNC is made a multiple or a part of
CHUNK = 32  # channels of HWNC
LAYOUTS = ("NCHW", "NCHW16c", "HWNC")


@dataclass(frozen=True)
class Format:
    """Storage of a logical ``(N, C, H, W)`` tensor of codes.

    ``code``: "uint4", "uint8", "int16" or "int32", the codes' range.
    ``layout``: "NCHW"; "NCHW16c" = ``(N, ceil(C/16), H, W, 16)``; or "HWNC" = ``(H, W, N', C')``, for Tensor Cores, N'
    being N made a power of two up to 8 or a multiple of 8, C' a multiple of 32.  What lies past N and C is undefined.
    ``packed``: eight uint4 codes in an int32 along the channels, element 0 in the low bits; the channel axis
    becomes ``ceil(C/8)`` in NCHW and the inner axis 2 in NCHW16c.  Codes past C are 0 in packed NCHW.
    In HWNC uint4 codes are always packed, and four uint8 codes are an int32, too: its last axis is C'/8 or C'/4 words.
    """

    code: str
    layout: str = "NCHW"
    packed: bool = False

    def __post_init__(self):
        four = self.code == "uint4"
        packs = self.packed == four if self._tensor_core else four or not self.packed
        if self.code not in STORAGE or self.layout not in LAYOUTS or not packs:
            raise ValueError(f"no such format: {self}")

    @property
    def _tensor_core(self) -> bool:
        return self.layout == "HWNC"

    @property
    def held(self) -> int:
        """Codes in an element of the storage."""
        return WORD if self.packed else BYTES if self._tensor_core and self.code == "uint8" else 1

    @property
    def dtype(self) -> str:
        """The storage's numpy dtype."""
        return "int32" if self.held > 1 else STORAGE[self.code]

    @property
    def limits(self) -> tuple[int, int]:
        """The least and greatest code."""
        return LIMITS[self.code]

    def shape(self, dims: tuple[int, int, int, int]) -> tuple[int, ...]:
        """Storage shape of a tensor with logical dims ``(N, C, H, W)``."""
        n, c, h, w = dims
        if self.layout == "NCHW":
            return (n, -(-c // self.held), h, w)
        if self._tensor_core:
            return (h, w, fragment_rows(n), -(-c // CHUNK) * CHUNK // self.held)
        return (n, -(-c // BLOCK), h, w, BLOCK // self.held)

    def store(self, codes: np.ndarray) -> np.ndarray:
        """``(N, C, H, W)`` integer codes -> contiguous storage of this format; what lies past N and C is 0."""
        n, c, h, w = codes.shape
        step = {"NCHW": self.held, "NCHW16c": BLOCK, "HWNC": CHUNK}[self.layout]
        rows = fragment_rows(n) if self._tensor_core else n
        codes = np.pad(codes, ((0, rows - n), (0, -c % step), (0, 0), (0, 0)))
        if self._tensor_core:
            codes = codes.transpose(2, 3, 0, 1)
        elif self.layout == "NCHW16c":
            codes = codes.reshape(n, -1, BLOCK, h, w).transpose(0, 1, 3, 4, 2)
        if self.packed:
            return np.ascontiguousarray(pack_words(codes, self._channels))
        stored = np.ascontiguousarray(codes.astype(STORAGE[self.code]))
        return stored.view(self.dtype)

    def load(self, stored: np.ndarray, channels: int, batch: int | None = None) -> np.ndarray:
        """Storage of this format -> ``(N, C, H, W)`` codes; the inverse of :meth:`store`.

        ``batch``: N, which HWNC does not tell; without it the rows past it come along.
        """
        codes = unpack_words(stored, self._channels) if self.packed else stored.view(STORAGE[self.code])
        if self._tensor_core:
            codes = codes.transpose(2, 3, 0, 1)
        elif self.layout == "NCHW16c":
            n, blocks, h, w, _ = codes.shape
            codes = codes.transpose(0, 1, 4, 2, 3).reshape(n, blocks * BLOCK, h, w)
        return np.ascontiguousarray(codes[:batch, :channels])

    @property
    def _channels(self) -> int:
        """The axis of channels that are packed."""
        return {"NCHW": 1, "NCHW16c": 4, "HWNC": 3}[self.layout]


def fragment_rows(batch: int) -> int:
    """A batch as HWNC stores it: a power of two that divides a fragment's rows, or a multiple of them."""
    return next((rows for rows in (1, 2, 4) if batch <= rows), -(-batch // ROWS) * ROWS)
