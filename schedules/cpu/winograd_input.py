"""From a convolution's input to the combinations of samples that its products take, in bytes throughout."""

from itertools import product

from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import BLOCK
from schedules.cpu.bilinear import offset
from schedules.cpu.codes import store_first
from schedules.cpu.intrin import NIBBLES, chunks, load, pick, scratch, splat, store, view
from schedules.cpu.winograd_geometry import VECTOR, Geometry, Region

BYTES = "uint8x64"


def stage(x, staged, geo: Geometry, image0, first_row):
    """``staged[image, slice, row, column % step, column // step, channel] = x``, the zero point outside of the input.

    ``x`` and ``staged`` are flat; the staged rows begin with input row ``first_row`` of image ``image0``.
    """
    workload = geo.workload
    zero = workload.x_zero_point
    line_dtype = "int32" if workload.x.packed else "uint8"
    elements = workload.x.shape((1, BLOCK, 1, 1))[-1]  # of a pixel of a block
    whole, left = divmod(workload.width, geo.columns.step * geo.vector_pixels)
    edge = scratch(geo.columns.step * geo.vector_pixels * elements, line_dtype)  # the last columns and what pads them
    fill = zero * 0x11111111 if workload.x.packed else zero
    chunks(
        geo.columns.step * geo.vector_pixels * elements,
        16,
        lambda at, lanes: store(edge, at, splat(_signed(fill), line_dtype, lanes)),
    )
    slices = geo.slices // geo.in_blocks
    with T.serial(geo.config.images) as image, T.serial(geo.in_blocks) as block, T.serial(geo.staged_rows) as row:
        source = T.bind(first_row + row)
        targets = [
            T.bind(((image * geo.slices + block * slices + part) * geo.staged_rows + row) * geo.row_bytes)
            for part in range(slices)
        ]
        with T.If(T.And(source >= 0, source < workload.height)):
            with T.Then():
                line = ((image0 + image) * geo.in_blocks + block) * workload.height + source
                start = T.bind(line * (workload.width * elements))
                for phase, target in product(range(geo.columns.step), targets):
                    _fill(staged, target + phase * geo.pitch * geo.pixel, geo.lead * geo.pixel, zero)
                if whole:
                    with T.serial(whole) as group:
                        first = T.bind(start + group * (geo.columns.step * geo.vector_pixels * elements))
                        _deal(x, first, staged, targets, geo.lead + group * geo.vector_pixels, geo)
                if left:
                    begin = start + whole * geo.columns.step * geo.vector_pixels * elements
                    chunks(
                        left * elements,
                        VECTOR // 4,
                        lambda at, lanes: store(edge, at, load(x, begin + at, f"{line_dtype}x{lanes}")),
                    )
                    _deal(edge, 0, staged, targets, geo.lead + whole * geo.vector_pixels, geo)
                done = geo.lead + (whole + bool(left)) * geo.vector_pixels
                for phase, target in product(range(geo.columns.step), targets):
                    at = target + (phase * geo.pitch + done) * geo.pixel
                    _fill(staged, at, (geo.pitch - done) * geo.pixel, zero)
            with T.Else():
                for target in targets:
                    _fill(staged, target, geo.row_bytes, zero)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word


def _fill(staged, target, size: int, value: int):
    chunks(size, VECTOR, lambda at, lanes: store(staged, target + at, splat(value, "uint8", lanes)))


def _deal(source, first, staged, targets: list, position, geo: Geometry):
    """``step`` vectors of neighbouring pixels to one vector of each phase and slice."""
    packed = geo.workload.x.packed
    lanes = VECTOR // 4 if packed else VECTOR
    vectors = [T.bind(load(source, first + i * lanes, f"{source.dtype}x{lanes}")) for i in range(geo.columns.step)]
    for phase, vector in enumerate(_phases([view("int64x8", v) for v in vectors], 1 if packed else 2)):
        at = (phase * geo.pitch + position) * geo.pixel
        for target, codes in zip(targets, _slices(vector, packed), strict=True):
            store(staged, target + at, codes)


def _slices(vector, packed: bool) -> list:
    if not packed:
        return [view("uint8x64", vector)]
    words = view("int32x16", vector)
    nibbles = splat(NIBBLES, "int32")
    return [view("uint8x64", half & nibbles) for half in (words, words >> splat(4, "int32"))]


def _phases(vectors: list, words: int) -> list:
    """Pixels of ``words`` int64 lanes each, dealt by their number modulo the count of vectors, a power of two."""
    if len(vectors) == 1:
        return vectors
    halves = []
    for odd in (0, 1):
        chosen = [lane for lane in range(16) if lane // words % 2 == odd]
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        halves.append(_phases([T.bind(pick(list(pair), chosen)) for pair in pairs], words))
    return [vector for pair in zip(*halves, strict=True) for vector in pair]


def combine(staged, combined, geo: Geometry, region: Region, places: tuple, number):
    """``combined[row product, column product, number, slice, tile, channel]``: nonnegative sums of a slab's samples.

    ``places``: first image, tile row and tile column of the slab; ``number``: which of the combined slabs it is.
    """
    rows, columns = region.rows.algorithm, region.columns.algorithm
    image, tile_row, tile_column = places
    first_column = region.columns.start * geo.columns.stride - geo.workload.padding[1]
    sources = [geo.position(first_column + j) for j in range(columns.samples)]
    first_row = region.rows.start * geo.rows.stride
    most, slab_bytes = geo.workload.x.limits[1], geo.slab_bytes(region)
    product_bytes = geo.product_bytes(region)
    image_tiles = region.slab_rows * region.slab_columns
    with T.serial(region.slab_images) as n, T.serial(geo.slices) as part:
        line = ((image + n) * geo.slices + part) * geo.staged_rows + first_row + tile_row * geo.rows.step
        source = T.bind(line * geo.row_bytes + tile_column * geo.pixel)
        target = T.bind((number * geo.slices + part) * slab_bytes + n * (image_tiles * geo.pixel))
        for row, column in product(range(region.slab_rows), range(0, region.slab_columns, geo.vector_pixels)):
            at = row * geo.rows.step * geo.row_bytes + column * geo.pixel
            samples = [
                [
                    T.bind(
                        load(
                            staged, source + at + i * geo.row_bytes + (phase * geo.pitch + position) * geo.pixel, BYTES
                        )
                    )
                    for phase, position in sources
                ]
                for i in range(rows.samples)
            ]
            tile = row * region.slab_columns + column
            alone = region.slab_tiles == region.slab_columns
            written = geo.vector_pixels if alone else min(geo.vector_pixels, region.slab_columns - column)
            for p, row_signs in enumerate(rows.inputs):
                sums = [T.bind(_sum([line[j] for line in samples], row_signs)) for j in range(columns.samples)]
                for q, column_signs in enumerate(columns.inputs):
                    value = _sum(sums, column_signs)
                    shift = offset(row_signs, column_signs, most)
                    value = value + splat(shift, "uint8", VECTOR) if shift else value
                    place = target + (p * len(columns.inputs) + q) * product_bytes + tile * geo.pixel
                    store_first(combined, place, value, written * geo.pixel)


def _sum(terms: list, signs: tuple[int, ...]):
    """Of vectors of bytes, modulo 256."""
    ordered = sorted(zip(signs, terms, strict=True), key=lambda pair: -pair[0])
    total = None
    for sign, term in ordered:
        if sign and total is None:
            total = term if sign > 0 else splat(0, "uint8", VECTOR) - term
        elif sign:
            total = total + term if sign > 0 else total - term
    return total
