"""From a 1x1 convolution's input to the left operands of the seven products, in bytes throughout."""

from tvm.tirx.script.builder import ir as T

from schedules.cpu.codes import pixel_elements
from schedules.cpu.intrin import NIBBLES, load, pick, scratch, splat, store, vector_lanes, view
from schedules.cpu.strassen_geometry import HALF, VECTOR, Geometry

LONGEST = VECTOR // HALF  # pixels of a vector of operands


def combine(x, operands, geo: Geometry, unit, pair, tile):
    """``operands[product, tile, block, pair, 8 channels]`` of one register tile, which begins with ``pair``.

    ``x`` and ``operands`` are flat.
    """
    workload, size = geo.workload, geo.config.tile
    per_pixel = pixel_elements(workload.x)
    image = T.bind(unit * (geo.unit_images * geo.in_blocks))
    if workload.strides == (1, 1):
        source, apart = x, geo.distance(geo.in_blocks)
    else:
        source, apart = scratch(2 * size * per_pixel, x.dtype), size
        places = [_places(geo, pair, number) for number in range(size)]
    with T.serial(geo.in_blocks) as block:
        if source is x:
            first = T.bind(((image + block) * geo.pixels + pair) * per_pixel)
        else:
            first = 0
            for number, halves in enumerate(places):
                for half, (past, place) in enumerate(halves):
                    plane = (image + block + past) * (workload.height * workload.width)
                    pixel = load(x, (plane + place) * per_pixel, f"{x.dtype}x{per_pixel}")
                    store(source, (half * size + number) * per_pixel, pixel)
        target = T.bind((tile * geo.in_blocks + block) * geo.pitch)
        for start, count in _runs(size):
            at = first + start * per_pixel
            upper = _halves(source, at, count, workload.x.packed)
            lower = _halves(source, at + apart * per_pixel, count, workload.x.packed)
            for number, operand in enumerate(_operands(*upper, *lower)):
                store(operands, target + (number * geo.product_bytes + start * HALF), operand)


def _places(geo: Geometry, pair, number: int) -> list[tuple]:
    """Channel blocks to skip and the input pixel of both pixels of a pair."""
    workload = geo.workload
    width = workload.out_dims[3]
    blocks, later = (geo.in_blocks, 0) if geo.unit_images == 2 else (0, geo.pixels - geo.pairs)
    places = []
    for past, offset in ((0, 0), (blocks, later)):
        pixel = T.bind(pair + (number + offset))
        row, column = pixel // width * workload.strides[0], pixel % width * workload.strides[1]
        places.append((past, T.bind(row * workload.width + column)))
    return places


def _runs(size: int) -> list[tuple[int, int]]:
    """First pixel and length of the vectors that cover ``size`` pixels; the last full one moves back to fit."""
    if size >= LONGEST:
        return [(min(start, size - LONGEST), LONGEST) for start in range(0, size, LONGEST)]
    bits = [bit for bit in (4, 2, 1) if size & bit]
    return [(size & ~(2 * bit - 1), bit) for bit in bits]


def _halves(source, at, pixels: int, packed: bool) -> list:
    """The two halves of the channels of neighbouring pixels of a block, uint8."""
    if packed:
        words = T.bind(load(source, at, f"int32x{2 * pixels}"))
        nibbles = splat(NIBBLES, "int32", 2 * pixels)
        halves = [words & nibbles, (words >> splat(4, "int32", 2 * pixels)) & nibbles]
    else:
        eights = T.bind(view(f"int64x{2 * pixels}", load(source, at, f"uint8x{16 * pixels}")))
        halves = [pick([eights], list(range(half, 2 * pixels, 2))) for half in (0, 1)]
    return [T.bind(view(f"uint8x{HALF * pixels}", half)) for half in halves]


def _operands(a11, a12, a21, a22) -> list:
    """The left operands, offset so that none is negative, in the order in which the kernel multiplies them."""
    lanes = vector_lanes(a11)
    most = splat(15, "uint8", lanes)
    s1 = T.bind(a21 + a22)
    s2 = T.bind(s1 + (most - a11))
    s3 = a11 + (most - a21)
    s4 = a12 + (splat(45, "uint8", lanes) - s2)
    return [a11, a12, s2, s3, a22, s1, s4]
