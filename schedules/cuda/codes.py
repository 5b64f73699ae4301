"""Codes of HWNC tensors in a thread: neighbouring channels are int32 words, whatever their format.

A chunk is ``CODES`` or more channels of one row of one pixel, a power of two; the storage of every format is the same
sequence of chunks.  Everything here is an expression or a statement of the :class:`IRBuilder` frame that is open.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import CHUNK, WORD, Format

CODES = WORD
BITS = {"uint4": 4, "uint8": 8, "int16": 16, "int32": 32}
VECTOR = 4  # words of the widest access, 128 bits


def chunk_sizes(formats: Sequence[Format]) -> list[int]:
    """Codes of a chunk, the first as many as make 128 bits in the widest of the formats."""
    widest = max(BITS[format.code] for format in formats)
    first = max(CODES, 32 * VECTOR // widest)
    return sorted({CODES, 2 * CODES, CHUNK}, key=lambda codes: abs(codes - first))


def words(codes: int, format: Format) -> int:
    """int32 words of a chunk."""
    return codes * BITS[format.code] // 32


def arguments(named: dict[str, Format], dims: Sequence[tuple[int, int, int, int]]) -> list:
    """A kernel's arguments of these formats and logical dims, as flat buffers of words."""
    shapes = [format.shape(d) for format, d in zip(named.values(), dims, strict=True)]
    tensors = [
        T.arg(name, T.buffer(shape, format.dtype, align=64, layout=None))
        for (name, format), shape in zip(named.items(), shapes, strict=True)
    ]

    def flat(name: str, tensor, size: int):
        # the kernel's parameter has this buffer's name
        return IRBuilder.name(name, T.decl_buffer((size,), "int32", data=tensor.data, align=64, layout=None))

    sizes = [words(math.prod(shape) * f.held, f) for shape, f in zip(shapes, named.values(), strict=True)]
    return [flat(*of) for of in zip(named, tensors, sizes, strict=True)]


@contextmanager
def each(count: int, threads: int) -> Iterator[Expr]:
    """The number of one of ``count`` pieces of work, a thread each."""
    with (
        T.launch_thread("blockIdx.x", -(-count // threads)) as block,
        T.launch_thread("threadIdx.x", threads) as thread,
    ):
        number = T.bind(block * threads + thread)
        if count % threads == 0:
            yield number
        else:
            with T.If(number < count), T.Then():
                yield number


def load(buffer, chunk: Expr, codes: int, format: Format) -> list[Expr]:
    """The codes of a chunk as int32."""
    count, bits = words(codes, format), BITS[format.code]
    held = _registers(count)
    for at, lanes in _vectors(count):
        _store(held, at, buffer.vload([chunk * count + at], _dtype(lanes)), lanes)
    found = []
    for i in range(codes):
        at, shift = divmod(i * bits, 32)
        if bits == 32:
            found.append(held[at])
        elif bits == 16:  # the upper half is shifted to the top, and back with its sign
            found.append((held[at] << (16 - shift)) >> 16)
        else:
            found.append((held[at] >> shift) & (2**bits - 1))
    return found


def store(buffer, chunk: Expr, values: Sequence[Expr], format: Format) -> None:
    """Writes int32 codes that are in the format's range as a chunk."""
    count, bits = words(len(values), format), BITS[format.code]
    held = _registers(count)
    for at in range(count):
        parts = values[at * 32 // bits : (at + 1) * 32 // bits]
        word = parts[0] if bits == 32 else parts[0] & (2**bits - 1)
        for i, part in enumerate(parts[1:], 1):
            word = word | (part << (i * bits))
        T.buffer_store(held, word, [at])
    for at, lanes in _vectors(count):
        _store(buffer, chunk * count + at, held.vload([at], _dtype(lanes)), lanes)


def registers(values: Sequence[Expr]):
    """int32 values that a loop changes, as a buffer."""
    held = _registers(len(values))
    for at, value in enumerate(values):
        T.buffer_store(held, value, [at])
    return held


def _registers(count: int):
    return T.alloc_buffer((count,), "int32", scope="local", layout=None)


def _vectors(count: int) -> list[tuple[int, int]]:
    """Offset and lanes of the accesses that make ``count`` words."""
    return [(at, min(VECTOR, count)) for at in range(0, count, VECTOR)]


def _dtype(lanes: int) -> str:
    return f"int32x{lanes}" if lanes > 1 else "int32"


def _store(buffer, at, value, lanes: int) -> None:
    at = tirx.const(at, "int32") if isinstance(at, int) else at
    T.buffer_store(buffer, value, [tirx.Ramp(at, 1, lanes) if lanes > 1 else at])
