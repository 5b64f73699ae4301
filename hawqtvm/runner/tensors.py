"""Tensors that a bundle describes instead of holding them: the same bytes on every machine.

A tensor is a JSON object.  ``{"blob": name}``: bytes of the bundle.  ``{"seed": text, "bytes": n}``: the first ``n``
bytes of SHAKE-128 (FIPS 202) of the text, of which ``"mask"``, a blob as long, keeps some bits; ``"order"``, a list of
``[extent, stride]`` from the outermost loop on, then says in which order its 32-bit words follow one another.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable

Blob = Callable[[str], bytes]


def made(tensor: dict, blob: Blob) -> bytes:
    """The tensor's bytes; ``blob(name)`` gives those of the bundle."""
    if "blob" in tensor:
        return blob(tensor["blob"])
    data = kept(noise(tensor["seed"], tensor["bytes"]), tensor.get("mask"), blob)
    return ordered(data, tensor["order"]) if "order" in tensor else data


def noise(seed: str, size: int) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


def kept(data: bytes, mask: str | None, blob: Blob) -> bytes:
    """The bits of ``data`` that are set in the blob ``mask``; all where there is none."""
    if mask is None:
        return data
    both = int.from_bytes(data, "little") & int.from_bytes(blob(mask), "little")
    return both.to_bytes(len(data), "little")


def ordered(data: bytes, order: list[list[int]]) -> bytes:
    """The 32-bit words of ``data`` as nested loops of these extents and strides, in words, meet them."""
    words, out = array("i", data), array("i")
    *outer, (extent, stride) = [loop for loop in order if loop[0] > 1] or [[1, 1]]
    starts = [0]
    for count, step in outer:
        starts = [start + index * step for start in starts for index in range(count)]
    reach = (extent - 1) * stride + 1
    for start in starts:
        out.extend(words[start : start + reach : stride])
    return out.tobytes()
