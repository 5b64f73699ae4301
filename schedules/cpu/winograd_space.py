"""Which configs of the bilinear convolution are legal or worth trying, and an estimate of the cycles they take."""

from dataclasses import replace
from itertools import product

from schedules.cpu.epilogue import finish_cycles
from schedules.cpu.winograd_geometry import Config, Geometry, geometry, product_dot4
from schedules.cuts import divisors, even
from schedules.target import CpuTarget
from schedules.workload import Conv2d

COMBINED_BYTES = (16 * 1024, 64 * 1024, 400 * 1024)
SUMS_BYTES = 128 * 1024  # in memory when slabs share weights
STAGED_BYTES = 1024 * 1024
LATENCY = 5
SPILL = 4  # times what the direct convolution loses to a vector that registers cannot hold
LOADS_PER_CYCLE = 1.8
NEAR = 512 * 1024  # bytes that stay in the second-level cache beside the rest
NEAR_BYTES_PER_CYCLE = 24  # from it, while products go on
FAR_BYTES_PER_CYCLE = 11  # from beyond it, prefetched
NEAREST = 32 * 1024  # bytes of the first-level cache
FAR_STORE, FAR_LOAD = 3, 0.7  # cycles for a vector of sums, and more for one of samples, that lies beyond it


def check(config: Config, workload: Conv2d, target: CpuTarget) -> str | None:
    geo, most = geometry(config, workload), product_dot4(target, workload).accumulators
    if config.tile_rows * config.tile_columns * config.oc_tile > most:
        return f"more than {most} accumulators"
    rows, columns = geo.rows.segments[0].tiles, geo.columns.segments[0].tiles
    if not config.tile_rows <= config.band <= rows or config.tile_columns > columns:
        return "a register tile or band is larger than the output"
    if config.tile_rows > 1 and config.tile_columns < columns:
        return "a register tile of several rows has all their columns"
    if workload.batch % config.images:
        return "images must divide the batch"
    if geo.out_blocks % (config.oc_tile * config.oc_groups):
        return "oc_tile * oc_groups must divide the output's channel blocks"
    if config.repeat > config.combined or config.combined > geo.regions[0].slabs:
        return "repeat at most combined, combined at most all register tiles"
    return _check_split(config, workload, geo) if config.split else None


def _check_split(config: Config, workload: Conv2d, geo: Geometry) -> str | None:
    if len(geo.rows.segments) == len(geo.columns.segments) == 1:
        return "nothing to split: the output's height and width are even"
    if config.band < geo.rows.segments[0].tiles:
        return "a split task has all rows of its images"
    for axis, extent, before, outputs in zip(
        (geo.rows, geo.columns),
        (workload.height, workload.width),
        workload.padding[:2],
        workload.out_dims[2:],
        strict=True,
    ):
        inside = outputs - 1 + 2 - before < extent
        if axis.stride == 1 and outputs % 2 and (inside or workload.x_zero_point):
            return "the last tap of the last output must fall on padding of 0"
    return None


def space(workload: Conv2d, target: CpuTarget, threads: int) -> list[Config]:
    """Register tiles that keep the multipliers busy, times the ways to cut the work so that it stays near."""
    configs, most = [], product_dot4(target, workload).accumulators
    _, _, height, width = workload.out_dims
    for split in (False, True):
        rows, columns = (max(1, extent // 2 if split else -(-extent // 2)) for extent in (height, width))
        for (tile_rows, tile_columns, oc_tile), band, images in product(
            _register_tiles(rows, columns, -(-workload.out_channels // 16), most),
            sorted({-(-rows // parts) for parts in (1, 2, 4, 8)}),
            divisors(workload.batch),
        ):
            one = Config(tile_rows, tile_columns, oc_tile, 1, 1, band, images, 1, split)
            if check(one, workload, target):
                continue
            geo = geometry(one, workload)
            if images > 1 and geo.staged_bytes > STAGED_BYTES:
                continue
            configs += _shared(one, geo, threads)
    return [config for config in configs if check(config, workload, target) is None]


def _shared(one: Config, geo: Geometry, threads: int):
    """The config with the numbers of register tiles and output channels that may share what is combined."""
    region, groups = geo.regions[0], geo.out_blocks // one.oc_tile
    slab = geo.combined_bytes(region)
    sums = region.sums * region.slab_tiles * one.oc_tile * 64
    together = {even(region.slabs, size // slab) for size in COMBINED_BYTES}
    for combined, parts in product(sorted(together), sorted({1, threads, 2 * threads})):
        if groups % parts == 0:
            for repeat in sorted({even(combined, most) for most in (1, 2, 4, SUMS_BYTES // sums)}):
                yield replace(one, combined=combined, repeat=repeat, oc_groups=groups // parts)


def _register_tiles(rows: int, columns: int, blocks: int, accumulators: int):
    """Even cuts of a row of tiles, or whole rows if they are short, with nearly half of the accumulators or more."""
    for oc_tile in (size for size in divisors(blocks) if size <= 4):
        most = accumulators // oc_tile
        least = min(accumulators * 3 // 7 // oc_tile, rows * columns)
        if columns <= most:
            for tile_rows in range(1, min(rows, most // columns) + 1):
                if tile_rows * columns >= least:
                    yield tile_rows, columns, oc_tile
        for size in {-(-columns // parts) for parts in range(2, columns + 1)}:
            if least <= size <= most:
                yield 1, size, oc_tile


def cycles(config: Config, workload: Conv2d, target: CpuTarget, threads: int) -> float:
    """Estimated cycles of the busiest thread."""
    geo, dot = geometry(config, workload), product_dot4(target, workload)
    vector = 1 if target.avx512 else 2  # operations that one of 512 bits takes
    depth = geo.in_blocks * 4
    total = geo.staged_bytes / 16 * vector * (FAR_STORE if geo.staged_bytes > NEAR else 1)
    finished = finish_cycles(geo.epilogue) + 0.5
    for region in geo.regions:
        tiles, oc_tile = region.slab_tiles, config.oc_tile
        vectors = region.slab_images * region.slab_rows * -(-region.slab_columns // geo.vector_pixels)
        together = geo.combined_slabs(region)
        repeat = min(config.repeat, together)
        rounds = -(-region.slabs // together)
        slabs = rounds * -(-together // repeat) * repeat  # some are done again, where the last ones move back
        total += rounds * together * geo.slices * vectors * 3 * region.products * vector
        weights = region.products * depth * oc_tile * 64
        # slabs share weights where those of a row of products stay in the first-level cache from one to the next
        shared = repeat > 1 and weights // len(region.rows.algorithm.inputs) <= NEAREST // 4
        read = 0 if shared else oc_tile * 64 / NEAR_BYTES_PER_CYCLE
        step = max(tiles * oc_tile * dot.cycles, LATENCY, (tiles + oc_tile) / LOADS_PER_CYCLE, read)
        step += SPILL * dot.spill * max(0, tiles * oc_tile + oc_tile + 1 - dot.registers)
        stored = FAR_STORE if repeat * region.sums * tiles * oc_tile * 64 > NEAREST else 1
        far_lines = region.products * geo.slices * geo.slab_bytes(region) / 64 * (geo.combined_bytes(region) > NEAREST)
        total += rounds * together * FAR_STORE * far_lines
        reduce = region.products * depth * step + FAR_LOAD * far_lines
        reduce += (region.sums * stored + 2 * region.constants) * tiles * oc_tile
        values = region.rows.algorithm.outputs * region.columns.algorithm.outputs
        finish = tiles * oc_tile * (region.sums * 0.75 + values * finished + 4)
        total += slabs * config.oc_groups * (reduce + finish * vector)
        rounds = rounds if config.oc_groups * weights > NEAR else 1
        total += config.oc_groups * rounds * weights / FAR_BYTES_PER_CYCLE
    tasks = workload.batch // config.images * -(-geo.rows.segments[0].tiles // config.band)
    tasks *= geo.out_blocks // config.oc_tile // config.oc_groups
    return -(-tasks // threads) * total
