"""Copies the input rows under a band of output rows to thread-private memory, padded and as plain bytes."""

from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import BLOCK
from schedules.cpu.conv2d_geometry import Geometry
from schedules.cpu.intrin import chunks, load, pick, splat, store, words_to_bytes

SLACK = 64  # bytes past the last pixel: a stem's last word reads up to three of them
CHUNK = 16  # pixels of a stem interleaved at a time


def staged_size(geo: Geometry, rows: int, images: int) -> int:
    return images * geo.in_blocks * geo.staged_height(rows) * geo.staged_width * geo.pixel + SLACK


def stage(x, staged, geo: Geometry, packed: bool, zero_point: int, image0, row0, rows: int, images: int):
    """``staged[image, block, row, column, channel] = x`` of one band, ``zero_point`` outside of the input.

    ``x`` and ``staged`` are flat; ``image0`` and ``row0`` number the band's first image and output row.
    """
    height, row_bytes = geo.staged_height(rows), geo.staged_width * geo.pixel
    with T.serial(images) as image, T.serial(geo.in_blocks) as block, T.serial(height) as row:
        source = T.bind(geo.first_sum(row0) * geo.strides[0] - geo.top + row)
        target = T.bind(((image * geo.in_blocks + block) * height + row) * row_bytes)
        with T.If(T.And(source >= 0, source < geo.height)):
            with T.Then():
                left = min(geo.left, geo.staged_width)
                inside = max(0, min(geo.width, geo.staged_width - left))
                _fill(staged, target, left * geo.pixel, zero_point)
                line = ((image0 + image) * (geo.stem or geo.in_blocks) + block) * geo.height + source
                if inside:
                    _copy(x, T.bind(line), staged, target + left * geo.pixel, geo, packed, inside)
                right = geo.staged_width - left - inside
                _fill(staged, target + (left + inside) * geo.pixel, right * geo.pixel, zero_point)
            with T.Else():
                _fill(staged, target, row_bytes, zero_point)


def _copy(x, line, staged, target, geo: Geometry, packed: bool, pixels: int):
    """``pixels`` pixels from the start of an input row, ``line`` its number (of channel 0 of a stem's planes)."""
    if geo.stem:
        _interleave(x, line * geo.width, staged, target, geo, pixels)
    elif packed:
        _unpack(x, line * geo.width * 2, staged, target, pixels)
    else:
        _move(x, line * geo.width * BLOCK, staged, target, pixels * BLOCK)


def _move(x, source, staged, target, size: int):
    def move(at, lanes):
        store(staged, target + at, load(x, source + at, f"uint8x{lanes}"))

    chunks(size, 64, move)


def _fill(staged, target, size: int, value: int):
    chunks(size, 64, lambda at, lanes: store(staged, target + at, splat(value, "uint8", lanes)))


def _unpack(x, source, staged, target, pixels: int):
    """Pixels of two words to pixels of 16 bytes; the channels of a word stay in the order of ``words_to_bytes``."""

    def unpack(at, count):
        store(staged, target + at * BLOCK, words_to_bytes(load(x, source + at * 2, f"int32x{2 * count}")))

    chunks(pixels, 4, unpack)


def _interleave(x, source, staged, target, geo: Geometry, pixels: int):
    """Planes of ``geo.stem`` channels to pixels of as many bytes."""
    channels, plane = geo.stem, geo.height * geo.width

    def chunk(at, lanes):
        planes = [load(x, source + channel * plane + at, f"uint8x{lanes}") for channel in range(channels)]
        order = [channel * lanes + lane for lane in range(lanes) for channel in range(channels)]
        store(staged, target + at * channels, pick(planes, order) if channels > 1 else planes[0])

    if pixels < CHUNK:
        for pixel in range(pixels):
            for channel in range(channels):
                value = x[source + channel * plane + pixel]
                T.buffer_store(staged, value, [target + pixel * channels + channel])
        return
    with T.serial(pixels // CHUNK) as index:
        chunk(index * CHUNK, CHUNK)
    if pixels % CHUNK:
        chunk(pixels - CHUNK, CHUNK)  # the last pixels again with some before them
