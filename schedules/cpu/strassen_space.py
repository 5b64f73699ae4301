"""Which configs of Strassen's convolution are legal or worth trying, and an estimate of the cycles they take."""

from schedules.cpu.epilogue import finish_cycles
from schedules.cpu.strassen_geometry import HALF, PRODUCTS, VECTOR, Config, Geometry
from schedules.cuts import divisors, even
from schedules.workload import Conv2d

REGISTERS = 32  # of accumulators, weights and the broadcast operands
LATENCY = 5  # cycles of a dot product whose accumulator is the next one's
LOADS_PER_CYCLE = 1.6
NEAREST = 32 * 1024  # bytes that stay in the first-level cache
NEAR = 512 * 1024  # bytes that stay in the second-level cache beside the rest
NEAR_BYTES_PER_CYCLE = 32  # from the second level
FAR_BYTES_PER_CYCLE = 8  # from beyond it
COMBINE_CYCLES = {True: 14, False: 28}  # of a vector of every operand that stays in the first level, or does not
OPERAND_BYTES = (NEAREST, 128 * 1024, 448 * 1024)


def check(config: Config, workload: Conv2d) -> str | None:
    geo = Geometry(workload, config)
    if config.tile * config.oc_tile + config.oc_tile + 1 > REGISTERS:
        return f"more than {REGISTERS} registers"
    if config.tile > geo.pairs or config.tiles > geo.unit_tiles:
        return "a tile or task is larger than the output"
    if geo.out_blocks % (2 * config.oc_tile * config.oc_groups):
        return "twice oc_tile * oc_groups must divide the output's channel blocks"
    return None


def space(workload: Conv2d, threads: int) -> list[Config]:
    """Register tiles that keep the multipliers busy, times the ways to cut the work so that it stays near."""
    configs = []
    pairs = Geometry(workload, Config(1, 1, 1, 1)).pairs
    halves = -(-workload.out_channels // 32)
    for oc_tile in (size for size in divisors(halves) if size <= 4):
        most = (REGISTERS - 1) // oc_tile - 1
        for tile in sorted({even(pairs, most), min(8, most, pairs)}):
            one = Geometry(workload, Config(tile, oc_tile, 1, 1))
            sizes = {even(one.unit_tiles, size // (PRODUCTS * one.product_bytes)) for size in OPERAND_BYTES}
            groups = halves // oc_tile
            shares = {groups // parts for parts in (1, threads, 2 * threads) if groups % parts == 0}
            configs += [Config(tile, oc_tile, tiles, share) for tiles in sorted(sizes) for share in sorted(shares)]
    return configs


def cycles(config: Config, workload: Conv2d, threads: int) -> float:
    """Estimated cycles of the busiest thread on a core with two 512-bit dot products a cycle."""
    geo = Geometry(workload, config)
    tile, oc_tile, tiles = config.tile, config.oc_tile, config.tiles
    # LLVM keeps the sums of a single tile from one product to the next, and then spills them
    spills = tile * oc_tile if tiles == 1 else 0
    step = max(tile * oc_tile / 2, LATENCY, (tile + oc_tile) / LOADS_PER_CYCLE) + spills
    reduce = PRODUCTS * (geo.in_blocks * HALF // 4 * step + tile * oc_tile + 12)
    finish = 4 * tile * oc_tile * (finish_cycles(workload.epilogue) + 1)
    operands = PRODUCTS * geo.product_bytes
    combine = tiles * geo.in_blocks * -(-tile // HALF) * COMBINE_CYCLES[operands <= NEAREST]
    weights = PRODUCTS * geo.matrix_vectors * VECTOR
    # a product's operands come from the second level for every group, its weights for every task
    near = (weights + (operands if operands > NEAREST else 0)) / NEAR_BYTES_PER_CYCLE
    task = config.oc_groups * (tiles * (reduce + finish) + near) + combine
    parts, shares = -(-geo.unit_tiles // tiles), geo.groups // config.oc_groups
    tasks = -(-geo.units * parts * shares // threads)
    far = config.oc_groups * weights / FAR_BYTES_PER_CYCLE
    return tasks * task + far * (tasks if geo.groups * weights > NEAR else 1)
