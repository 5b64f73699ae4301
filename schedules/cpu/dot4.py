"""``acc[l] + sum_j x[4l+j] * w[4l+j]`` over 16 int32 lanes, exactly, in the instructions of each x86 level.

VNNI has one instruction, vpdpbusd.  AVX2 multiplies bytes by vpmaddubsw, whose sums of two products saturate at int16:
it serves where codes are small enough.  Elsewhere even and odd bytes become int16 for vpmaddwd.

Codes (uint8x64) and weights (int8x64) go through :meth:`x` and :meth:`w` once and then into any number of sums.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from tvm import tirx

from schedules.cpu.intrin import halves, splat, view, wrapping_add
from schedules.target import CpuTarget

INT16_MAX = 2**15 - 1


@dataclass(frozen=True)
class Dot4(ABC):
    """One form of the sums, and what it means for a register tile."""

    cycles: float  # a core's time for one vector of codes and one of weights
    accumulators: int  # int32x16 sums of a register tile at most
    registers: int  # 512-bit vectors that fit the registers
    spill: float  # cycles lost for each vector beyond them
    words: int = 1  # vectors of codes, and as many of weights, that one `add` takes at most
    parts: int = 1  # vectors of 64 bytes that `x` and `w` make of one

    def x(self, codes) -> list:
        return [codes]

    def w(self, weights) -> list:
        return [weights]

    @abstractmethod
    def add(self, acc, xs: list, ws: list):
        """``acc`` and the sums of ``words`` vectors at most, whose parts ``xs`` and ``ws`` hold, modulo 2**32."""


@dataclass(frozen=True)
class WideVnni(Dot4):
    """vpdpbusd on 512 bits."""

    def add(self, acc, xs: list, ws: list):
        for x, w in zip(xs, ws, strict=True):
            acc = tirx.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpdpbusd.512", acc, x, w)
        return acc


@dataclass(frozen=True)
class Vnni(Dot4):
    """vpdpbusd on 256 bits, twice."""

    def add(self, acc, xs: list, ws: list):
        for x, w in zip(xs, ws, strict=True):
            acc = halves("llvm.x86.avx512.vpdpbusd.256", "int32x8", acc, x, w)
        return acc


@dataclass(frozen=True)
class ByteProducts(Dot4):
    """vpmaddubsw, the sum of ``words`` of them in int16, then vpmaddwd by ones to int32."""

    def add(self, acc, xs: list, ws: list):
        pairs = _sum([halves("llvm.x86.avx2.pmadd.ub.sw", "int16x16", *pair) for pair in zip(xs, ws, strict=True)])
        return wrapping_add(acc, halves("llvm.x86.avx2.pmadd.wd", "int32x8", pairs, splat(1, "int16", 32)))


@dataclass(frozen=True)
class WordProducts(Dot4):
    """vpmaddwd of the even bytes and of the odd ones, as int16."""

    def x(self, codes) -> list:
        words = view("uint16x32", codes)
        return [view("int16x32", part) for part in (words & splat(255, "uint16", 32), words >> splat(8, "uint16", 32))]

    def w(self, weights) -> list:
        words, eight = view("int16x32", weights), splat(8, "int16", 32)
        return [(words << eight) >> eight, words >> eight]

    def add(self, acc, xs: list, ws: list):
        pairs = [halves("llvm.x86.avx2.pmadd.wd", "int32x8", *pair) for pair in zip(xs, ws, strict=True)]
        return wrapping_add(acc, _sum(pairs))


def dot4(target: CpuTarget, products: int) -> Dot4:
    """The form for a target with AVX2; ``products`` is the greatest ``|x[2i] * w[2i] + x[2i+1] * w[2i+1]|``."""
    if target.vnni:
        return WideVnni(cycles=0.5, accumulators=28, registers=32, spill=1)
    if target.avx_vnni:
        return Vnni(cycles=1, accumulators=6, registers=8, spill=4)
    # one addition to a sum every few words: it costs little that most sums of a tile lie in memory
    if products <= INT16_MAX:
        return ByteProducts(cycles=2, accumulators=14, registers=8, spill=0, words=min(4, INT16_MAX // products))
    return WordProducts(cycles=3.5, accumulators=14, registers=8, spill=0, words=2, parts=2)


def layer_dot4(target: CpuTarget, workload) -> Dot4:
    """For any codes and weights of a convolution or dense layer."""
    return dot4(target, 2 * workload.x.limits[1] * 2 ** (workload.weight_bits - 1))


def _sum(vectors: list):
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    return total
