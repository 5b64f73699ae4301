"""The knobs of the direct convolution, which of them are legal, and an estimate of the cycles they take."""

from dataclasses import dataclass

from schedules.cpu.conv2d_geometry import Geometry, geometry
from schedules.cpu.conv2d_staging import staged_size
from schedules.cpu.dot4 import Dot4, layer_dot4
from schedules.cpu.epilogue import finish_cycles
from schedules.cuts import divisors
from schedules.target import CpuTarget
from schedules.workload import Conv2d

LATENCY = 5  # cycles of a dot product whose accumulator is the next one's
NEAREST = 16 * 1024  # bytes that stay in the first-level cache beside the rest
NEAR = 512 * 1024  # and in the second-level cache
NEAR_BYTES_PER_CYCLE = 64  # from the second level, foreseen
FAR_BYTES_PER_CYCLE = 8  # from beyond it
LOADS_PER_CYCLE = 1.6
STAGED_BYTES_PER_CYCLE = {True: 32, False: 14}  # within NEAREST, or more
ROW_TILES = (1, 2, 3, 4)
POOL_CYCLES = 3  # to put 16 sums into a line, and for their share of a maximum of 3 x 3 at stride 2


class Core:
    """What a core of the target takes for the steps of a convolution, in cycles."""

    def __init__(self, target: CpuTarget, workload: Conv2d):
        self.dot = layer_dot4(target, workload)
        self.finish = finish_cycles(workload.epilogue) * (1 if target.avx512 else 1.7)  # to requantize 16 sums

    def step(self, pixels: int, oc_tile: int) -> float:
        """One reduction step of a register tile: dot products, their latency, or loads."""
        accumulators, loads = pixels * oc_tile, pixels + oc_tile
        spills = self.dot.spill * max(0, accumulators + oc_tile + 1 - self.dot.registers)
        return max(accumulators * self.dot.cycles, LATENCY, loads / LOADS_PER_CYCLE) + spills


@dataclass(frozen=True)
class Config:
    row_tile: int  # output rows of a register tile
    col_tile: int  # output columns of a register tile
    oc_tile: int  # blocks of 16 output channels of a register tile
    rows: int  # output rows of a task
    images: int  # images of a task
    oc_groups: int  # groups of oc_tile blocks of a task
    expanded: bool  # the kernel reads 4-bit weights as bytes, which they become when the library is loaded

    def weight_bits(self, workload: Conv2d) -> int:
        """Bits of a weight as the kernel reads it."""
        return 8 if self.expanded else workload.weight_bits


def check(config: Config, workload: Conv2d, target: CpuTarget) -> str | None:
    geo, most = geometry(workload), layer_dot4(target, workload).accumulators
    if min(geo.out_height, geo.out_width) < 1:
        return "the output is empty"
    if config.row_tile * config.col_tile * config.oc_tile > most:
        return f"more than {most} accumulators"
    if config.col_tile > geo.out_width or config.row_tile > config.rows or config.rows > geo.rows:
        return "a tile is larger than the output"
    if geo.pool and config.row_tile > 1:
        return "a pool takes one row of sums at a time"
    if geo.batch % config.images:
        return "images must divide the batch"
    if geo.out_blocks % (config.oc_tile * config.oc_groups):
        return "oc_tile * oc_groups must divide the output's channel blocks"
    if config.expanded and workload.weight_bits != 4:
        return "only 4-bit weights can be expanded"
    return None


def space(workload: Conv2d, target: CpuTarget, threads: int) -> list[Config]:
    """Register tiles within a quarter of the best, times the ways to cut the work into tasks and to keep weights."""
    geo, core = geometry(workload), Core(target, workload)
    tiles = {tile: _tile_cycles(core, geo, *tile) for tile in _register_tiles(geo, core.dot.accumulators)}
    good = [tile for tile, cost in tiles.items() if cost <= 1.25 * min(tiles.values())]
    rows = {-(-geo.rows // parts) for parts in (1, threads, 2 * threads, 4 * threads, 8 * threads)}
    bands = {(band, images) for band in rows for images in divisors(geo.batch)}
    if geo.staged:
        bands |= {(band, 1) for band in range(1, geo.rows + 1) if staged_size(geo, band, 1) <= NEAREST}
    configs = []
    for row_tile, col_tile, oc_tile in good:
        groups = geo.out_blocks // oc_tile
        shares = {groups // parts for parts in (1, threads, 2 * threads) if groups % parts == 0}
        configs += [
            Config(row_tile, col_tile, oc_tile, band, images, share, expanded)
            for band, images in sorted(bands)
            if band >= row_tile
            for share in sorted(shares)
            for expanded in ((True, False) if workload.weight_bits == 4 else (False,))
        ]
    return configs


def cycles(config: Config, workload: Conv2d, target: CpuTarget, threads: int) -> float:
    """Estimated cycles of the busiest thread."""
    geo, core = geometry(workload), Core(target, workload)
    tile_columns = -(-geo.out_width // config.col_tile)
    rows = geo.sums(config.rows)
    full, single = divmod(rows, config.row_tile)
    step = full * core.step(config.row_tile * config.col_tile, config.oc_tile)
    step += single * core.step(config.col_tile, config.oc_tile)
    pixels = rows * tile_columns * config.col_tile
    finish = (POOL_CYCLES if geo.pool else core.finish) * pixels * config.oc_tile
    groups = config.oc_groups * config.images
    compute = groups * (step * tile_columns * geo.taps * geo.words + finish + 20 * full * tile_columns)

    group_bytes = geo.taps * geo.words * config.oc_tile * 64
    weight_bits = config.weight_bits(workload)
    unpack = config.oc_groups * group_bytes / 32 if unpacks(config, workload, core.dot) else 0
    weights = geo.out_blocks // config.oc_tile * group_bytes * weight_bits // 8
    held = staged_size(geo, config.rows, config.images)
    staging = held / STAGED_BYTES_PER_CYCLE[held <= NEAREST] if geo.staged else 0
    far = held / (2 if workload.x.packed else 1)
    if held > NEAR:  # the input leaves the cache between two groups, when staged also before the first
        far += held * (config.oc_groups + (1 if geo.staged else -1))
    task = compute + unpack + staging + far / FAR_BYTES_PER_CYCLE
    bands = -(-geo.rows // config.rows)
    tasks = geo.batch // config.images * bands * (geo.out_blocks // config.oc_tile // config.oc_groups)
    tasks = -(-tasks // threads)
    read = tasks * (config.oc_groups * group_bytes * weight_bits // 8)
    if weights > NEAR:  # they leave the cache between two tasks
        return tasks * task + read / FAR_BYTES_PER_CYCLE
    near = read if weights > NEAREST else 0  # but the first task finds them where the other layers left them
    return tasks * task + near / NEAR_BYTES_PER_CYCLE + weights / threads / FAR_BYTES_PER_CYCLE


def unpacks(config: Config, workload: Conv2d, dot: Dot4) -> bool:
    """Whether a task makes two vectors of each vector of weights before it multiplies them."""
    return config.weight_bits(workload) == 4 or dot.parts == 2


def _register_tiles(geo: Geometry, accumulators: int):
    for oc_tile in divisors(geo.out_blocks):
        for row_tile in ROW_TILES[: 1 if geo.pool else None]:
            most = accumulators // (oc_tile * row_tile)
            if most < 1 or row_tile > geo.out_height:
                continue
            widest = -(-geo.out_width // -(-geo.out_width // most))  # as many columns as fit, evenly
            if row_tile == 1 or widest == geo.out_width:
                yield row_tile, widest, oc_tile


def _tile_cycles(core: Core, geo: Geometry, row_tile: int, col_tile: int, oc_tile: int) -> float:
    """Cycles of one reduction step over the whole output."""
    full, single = divmod(geo.out_height, row_tile)
    rows = full * core.step(row_tile * col_tile, oc_tile) + single * core.step(col_tile, oc_tile)
    return rows * -(-geo.out_width // col_tile) * (geo.out_blocks // oc_tile)
