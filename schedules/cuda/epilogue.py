"""A lane's accumulators to codes in memory: requantization, residual, second output, packing; all of them exact.

A lane has ``2 * frags_n`` neighbouring channels of one image of one pixel in each fragment row of its warp.  Channels
are dealt to the fragments' columns so: then only fewer codes than a word holds need other lanes' to fill it.
"""

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import Format
from schedules.cpu.requantize import FAST_SHIFT, fast_operand, lift, short_scale
from schedules.cuda import device
from schedules.cuda.memory import copy, local, when
from schedules.workload import Epilogue, Rescaled

BITS = {"uint4": 4, "uint8": 8, "int16": 16, "int32": 32}
WORD = 32
MAX_SHIFT = 62  # beyond it 2**(c-1) plus a product leaves int64


def is_fast(epilogue: Epilogue) -> bool:
    """Whether 32 bits are enough, the fast way of :mod:`schedules.cpu.requantize`."""
    return epilogue.min_shift >= FAST_SHIFT and (epilogue.residual is None or fast_operand(epilogue.residual))


def dyadic(value, b, c, fast: bool):
    """``(value * b + 2**(c-1)) >> c`` of int32 ``value``; fast: int32, of ``c`` at least 33, else int64."""
    product = value.astype("int64") * b.astype("int64")
    if fast:
        # shifts of which TVM knows no bounds make it drop the clip: their mask changes no value
        rounding = tirx.const(1, "int32") << ((c - FAST_SHIFT) & (WORD - 1))
        return ((product >> tirx.const(32, "int64")).astype("int32") + rounding) >> ((c - 32) & (WORD - 1))
    one, c = tirx.const(1, "int64"), c.astype("int64")
    return (product + (one << (c - one))) >> c


def rescaled(q, operand: Rescaled, fast: bool):
    """A code of an addition's operand, rescaled."""
    short = short_scale(operand) if fast else None
    if short:
        multiplier, offset, shift = short
        return (q * multiplier + offset) >> shift
    value, c = q - operand.zero_point, operand.c
    if fast and lift(c):
        value, c = value << lift(c), c + lift(c)
    return dyadic(value, tirx.const(operand.b, "int32"), tirx.const(c, "int32"), fast)


def clip(value, lo: int, hi: int):
    """int32 or int64 -> int32 of lo..hi."""
    dtype = str(value.ty.dtype)
    return tirx.max(tirx.min(value, tirx.const(hi, dtype)), tirx.const(lo, dtype)).astype("int32")


class Finish:
    """What a lane does with its channels, which begin at ``channel``; ``lane`` is its place among the four of a row."""

    def __init__(self, epilogue: Epilogue | None, count: int, channel, lane, channels: int, table):
        self.epilogue, self.count, self.channel, self.lane, self.channels = epilogue, count, channel, lane, channels
        self.rows = 1 if epilogue is None else 3
        self.scale = local("scale", self.rows * count)
        for row in range(self.rows):
            copy(self.scale, row * count, table, channel + row * channels, count)

    def codes(self, sums: list, residual, row) -> list[list]:
        """int32 sums -> the codes of each output; ``row``: of a pixel and an image, of the residual."""
        epilogue = self.epilogue
        sums = [value + self.scale[k] for k, value in enumerate(sums)]
        if epilogue is None:
            return [[T.bind(value) for value in sums]]
        fast = is_fast(epilogue)
        values = [
            dyadic(v, self.scale[self.count + k], self.scale[2 * self.count + k], fast) for k, v in enumerate(sums)
        ]
        if epilogue.residual:
            added = self._load(residual, row, epilogue.residual.format)
            values = [v + rescaled(q, epilogue.residual, fast) for v, q in zip(values, added, strict=True)]
        codes = [T.bind(clip(v + epilogue.zero_point, epilogue.lo, epilogue.hi)) for v in values]
        return [codes, [T.bind(self._again(code)) for code in codes]] if epilogue.codes else [codes]

    def _again(self, code):
        """A code of the second output."""
        made = self.epilogue.codes
        value = rescaled(code, made.y, fast_operand(made.y))
        return clip(value + made.zero_point, made.lo, made.hi)

    def _first_word(self, row, bits: int):
        return T.bind(row * (self.channels * bits // WORD) + self.channel * bits // WORD)

    def _load(self, buffer, row, format: Format) -> list:
        """This lane's codes of a tensor, int32."""
        bits = BITS[format.code]
        size, held = max(1, self.count * bits // WORD), WORD // bits
        words = local("residual_words", size)
        copy(words, 0, buffer, self._first_word(row, bits), size)
        if bits == WORD:
            return [words[k] for k in range(self.count)]
        first = self.lane % (held // self.count) * self.count if held > self.count else 0
        return [self._extract(words[k // held], first + k % held, bits) for k in range(self.count)]

    def _extract(self, word, place, bits: int):
        if bits == 16:  # signed
            return word << (WORD - bits - place * bits) >> (WORD - bits)
        return (word >> (place * bits)) & ((1 << bits) - 1)

    def words(self, codes: list, bits: int):
        """Codes in int32 words, those of neighbouring lanes together where this lane's do not fill one."""
        held = WORD // bits
        words = local("words", max(1, self.count // held))
        mask = (1 << bits) - 1
        for first in range(0, self.count, held):
            parts = codes[first : first + held]
            word = parts[0] & mask if bits < WORD else parts[0]
            for place, code in enumerate(parts[1:], 1):
                word = word | ((code & mask) << (place * bits))
            T.buffer_store(words, word, [first // held])
        lanes = held // self.count
        if lanes > 1:
            T.buffer_store(words, words[0] << (self.lane % lanes * (self.count * bits)), [0])
            other = 1
            while other < lanes:
                T.buffer_store(words, words[0] | device.from_lane(words[0], other), [0])
                other *= 2
        return words

    def store(self, buffer, words, row, bits: int):
        """Writes a lane's words; of lanes that have one together the first."""
        lanes = WORD // bits // self.count
        with when(self.lane % lanes == 0 if lanes > 1 else None):
            copy(buffer, self._first_word(row, bits), words, 0, max(1, self.count * bits // WORD))
