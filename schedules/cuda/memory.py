"""Memory of a thread and of a block, and code under a condition, for kernels of an :class:`IRBuilder` frame."""

from collections.abc import Iterator
from contextlib import contextmanager

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from schedules.cpu.intrin import load, store

BYTES = 4


def local(name: str, size: int):
    """int32 registers; every index must be known when loops are unrolled."""
    return IRBuilder.name(name, T.alloc_buffer((size,), "int32", scope="local", align=16, layout=None))


def shared(name: str, size: int):
    """int32 of a block."""
    return IRBuilder.name(name, T.alloc_buffer((size,), "int32", scope="shared", align=16, layout=None))


def vector(lanes: int) -> str:
    return f"int32x{lanes}" if lanes > 1 else "int32"


def copy(target, at, source, start, words: int):
    """``target[at : at + words] = source[start : start + words]`` of int32, up to 128 bits at a time."""
    step = min(words, 4)
    for first in range(0, words, step):
        store(target, at + first, load(source, start + first, vector(step)))


@contextmanager
def when(condition) -> Iterator[None]:
    """A block of code under a condition; None is always."""
    if condition is None:
        yield
        return
    with T.If(condition), T.Then():
        yield


def unrolled(count: int):
    """A loop that nvcc unrolls; its text stays short."""
    return T.serial(count, unroll=True)


def rolled(count: int):
    """A loop of chunks or rows that nvcc leaves one; unrolled they take more registers than there are.

    Only ptxas still unrolls a short one.
    """
    return T.serial(count, unroll=False)
