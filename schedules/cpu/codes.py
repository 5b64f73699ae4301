"""Codes of an NCHW16c tensor between registers (int32x16, one vector a pixel and channel block) and memory."""

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import Format
from schedules.cpu.intrin import (
    LANES,
    bytes_to_words,
    codes_of_words,
    halves,
    load,
    pick,
    splat,
    store,
    vector_lanes,
    view,
)
from schedules.cpu.requantize import clip
from schedules.target import CpuTarget
from schedules.workload import Epilogue, Requantized

SQUARE = [4 * (lane % 4) + lane // 4 for lane in range(LANES)]  # a square of four by four words, transposed


def pixel_elements(format: Format) -> int:
    """Elements of the storage that hold the 16 channels of one pixel."""
    return 2 if format.packed else LANES


def load_codes(buffer, pixel, format: Format):
    """The 16 codes of a pixel as int32x16."""
    at = pixel * pixel_elements(format)
    if format.packed:
        return codes_of_words(load(buffer, at, "int32x2")).astype("int32x16")
    codes = load(buffer, at, f"{format.dtype}x16")
    return codes if format.dtype == "int32" else codes.astype("int32x16")


def store_codes(buffer, pixel, value, format: Format, lo: int, hi: int):
    """Clip an int32x16 to lo..hi and write it as the codes of one pixel, on any x86."""
    codes = clip(value, lo, hi)
    if format.dtype != "int32":
        codes = codes.astype("int16x16" if format.code == "int16" else "uint8x16")
    elif format.packed:
        codes = bytes_to_words(codes.astype("uint8x16"))
    store(buffer, pixel * pixel_elements(format), codes)


def pack_codes(target: CpuTarget, values: list, made: Epilogue | Requantized) -> list:
    """Clip int32x16 vectors of pixels to vectors of 16, 32 or 64 codes (int32, int16 or of bytes); the last may repeat.

    Four vectors become 64 bytes with three packs and one permutation, where a clip and a narrowing store of each would
    take twelve: the packs of AVX2 and AVX-512 saturate, so the clip to 0..255 or int16 costs nothing.
    """
    step = pack_step(made.out)
    pack = {1: _as_int32, 2: _as_int16, 4: _as_uint8}[step]
    groups = [values[first : first + step] for first in range(0, len(values), step)]
    return [T.bind(pack(target, (group + group[-1:] * step)[:step], made.lo, made.hi)) for group in groups]


def pack_step(format: Format) -> int:
    """Pixels of a vector of :func:`pack_codes`."""
    return {"int32": 1, "int16": 2}.get(format.code, 4)


def store_run(buffer, pixel, vectors: list, count: int, format: Format):
    """Write the codes of ``count`` neighbouring pixels, packed by :func:`pack_codes`."""
    step, per_pixel = pack_step(format), pixel_elements(format)
    for first, codes in zip(range(0, count, step), vectors, strict=True):
        codes = bytes_to_words(codes) if format.packed else codes
        store_first(buffer, (pixel + first) * per_pixel, codes, min(step, count - first) * per_pixel)


def store_square(buffer, lines: list, vectors: list, width: int, columns: int, format: Format):
    """Write the codes of ``columns`` neighbouring pixels from each of ``lines``, the last line first.

    ``vectors``: lines of ``width`` pixels, one or two, end to end, packed by :func:`pack_codes`.
    """
    words = [bytes_to_words(codes) for codes in vectors] if format.packed else vectors
    per_pixel = pixel_elements(format)
    for number, line in reversed(list(enumerate(lines))):
        first = number * width * per_pixel
        row = pick(words, list(range(first, first + columns * per_pixel)))
        store(buffer, line * per_pixel, row)


def store_first(buffer, index, vector, count: int):
    """Write the first ``count`` lanes, in powers of two."""
    lanes = vector_lanes(vector)
    done = 0
    while done < count:
        size = 1 << ((count - done).bit_length() - 1)
        part = vector if size == lanes else pick([vector], list(range(done, done + size)))
        store(buffer, index + done, part)
        done += size


def _as_int32(target, values, lo, hi):
    return clip(values[0], lo, hi)


def _as_int16(target, values, lo, hi):
    packed = _pack(target, "packssdw", "int16", *values)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    codes = view("int16x32", pick([view("int64x8", packed)], order))
    return codes if (lo, hi) == (-(2**15), 2**15 - 1) else clip(codes, lo, hi)


def _as_uint8(target, values, lo, hi):
    return bytes_of_pairs(target, int16_pairs(target, values), lo, hi)


def int16_pairs(target: CpuTarget, values: list) -> list:
    """One to four int32x16 -> two int16x32 of two each, saturated, in the order of vpackssdw; the last may repeat."""
    a, b, c, d = (values + values[-1:] * 3)[:4]
    return [_pack(target, "packssdw", "int16", *pair) for pair in ((a, b), (c, d))]


def bytes_of_pairs(target: CpuTarget, pairs: list, lo: int, hi: int):
    """Two int16x32 of :func:`int16_pairs` -> uint8x64, a pixel after the other, clipped to lo..hi."""
    packed = view("int32x16", _pack(target, "packuswb", "uint8", *pairs))
    codes = view("uint8x64", pick([packed], SQUARE))
    if hi < 255:
        codes = tirx.min(codes, splat(hi, "uint8", 64))
    return tirx.max(codes, splat(lo, "uint8", 64)) if lo > 0 else codes


def pairs_of_bytes(codes) -> list:
    """uint8x64 -> two uint16x32 in the order of :func:`int16_pairs`, the codes in their upper bytes."""
    words = view("uint8x64", pick([view("int32x16", codes)], SQUARE))
    pairs = []
    for half in (0, 8):
        places = [16 * lane + half + byte for lane in range(4) for byte in range(8)]
        lanes = [index for place in places for index in (0, 64 + place)]
        pairs.append(view("uint16x32", pick([splat(0, "uint8", 64), words], lanes)))
    return pairs


def load_bytes(buffer, pixels: list, neighbours: int):
    """The 16 bytes of each of one to four pixels, as uint8x64; the last may repeat.

    ``neighbours``: how many follow one another in memory, 1, 2 or all.
    """
    parts, first = [], 0
    while first < len(pixels):
        left = min(len(pixels) - first, neighbours - first % neighbours)
        size = 1 << (left.bit_length() - 1)
        parts.append(load(buffer, pixels[first] * LANES, f"uint8x{size * LANES}"))
        first += size
    last = len(pixels) - 1
    return pick(parts, [min(pixel, last) * LANES + channel for pixel in range(4) for channel in range(LANES)])


def _pack(target: CpuTarget, name: str, dtype: str, a, b):
    """Four lanes of ``a`` and four of ``b`` in turn (eight of packuswb), saturated."""
    lanes = 2 * vector_lanes(a)
    if target.avx512:
        return tirx.call_llvm_pure_intrin(f"{dtype}x{lanes}", f"llvm.x86.avx512.{name}.512", a, b)
    return halves(f"llvm.x86.avx2.{name}", f"{dtype}x{lanes // 2}", a, b)
