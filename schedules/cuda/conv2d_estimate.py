"""An estimate of a Tensor Core convolution's cycles, to rank its configs before any is measured.

An SM has some blocks at a time.  They share its Tensor Cores, its shared memory and its way to the second-level cache,
whichever is busiest; but a block alone also waits, for memory and at barriers, and a round of them takes no less.
"""

from dataclasses import dataclass

from schedules.cuda.conv2d_geometry import QUAD, Geometry, geometry
from schedules.cuda.conv2d_space import (
    LANES,
    SM_REGISTERS,
    WORD_BYTES,
    Config,
    accumulators,
    registers,
    shared_bytes,
    tile,
)
from schedules.cuda.epilogue import BITS
from schedules.target import CudaTarget
from schedules.workload import Conv2d

BANK_BYTES = 128  # of shared memory, a cycle
SECTOR_QUADS = 2  # of the second-level cache
SCHEDULERS = 4  # of an SM, each with a quarter of its Tensor Cores
LATENCY = 600  # cycles of a load from global memory
BARRIER = 40
OVERLAP = 0.1  # how much the shorter of a kernel's work and its bytes of DRAM adds to the longer
LAUNCH = 2000  # a block's start, its first addresses and its last stores


@dataclass(frozen=True)
class Gpu:
    """``products``: 8x8 fragments times a quad that an SM makes a cycle; bytes a cycle of an SM, and of all DRAM."""

    sms: int
    products: float
    cache_bytes: float
    dram_bytes: float


# the GPU of each target; data sheets, at the boost clock
GPUS = {
    "sm_75": Gpu(40, 1, 20, 200),
    "sm_80": Gpu(108, 2, 40, 1100),
    "sm_86": Gpu(72, 1, 20, 350),
    "sm_89": Gpu(58, 1, 24, 150),
    "sm_90": Gpu(132, 2, 40, 1830),
}


def cycles(config: Config, workload: Conv2d, target: CudaTarget) -> float:
    geo, gpu = geometry(workload), GPUS[target.arch]
    blocks = pixel_tiles(config, geo) * (geo.out_channels // config.channels)
    busy, alone = _block(config, workload, geo, target, gpu)
    resident = resident_blocks(config, geo, target)
    rounds, left = divmod(-(-blocks // gpu.sms), resident)
    time = rounds * max(resident * busy, alone) + (max(left * busy, alone) if left else 0)
    moved = _bytes(workload, geo) / gpu.dram_bytes
    return max(time, moved) + OVERLAP * min(time, moved)


def pixel_tiles(config: Config, geo: Geometry) -> int:
    rows, columns = -(-geo.y.out // config.height), -(-geo.x.out // (config.width * geo.pixels))
    return geo.images // geo.rows * rows * columns


def resident_blocks(config: Config, geo: Geometry, target: CudaTarget) -> int:
    """Of an SM."""
    held = -(-registers(config, geo, target) // 8) * 8 * config.threads
    limits = target.threads_sm // config.threads, SM_REGISTERS // held, target.shared_sm // shared_bytes(config, geo)
    return max(1, min(*limits, target.blocks_sm))


def _block(config: Config, workload: Conv2d, geo: Geometry, target: CudaTarget, gpu: Gpu) -> tuple[float, float]:
    """Cycles of the SM's busiest part for a block, and what the block takes alone."""
    staged, fragments = tile(config, geo), config.frags_m * config.frags_n
    chunks = geo.quads // config.chunk
    steps = geo.taps[0] * geo.taps[1] * config.chunk // config.warps_k  # of a warp, between barriers
    unpacked = 2 if workload.weight_bits == 4 and not target.int4 else 1
    products = config.warps * fragments * steps * unpacked / gpu.products
    words = staged.input + staged.weights
    loads = config.warps * (config.frags_m + config.frags_n) * steps + words * WORD_BYTES / BANK_BYTES
    sectors = max(1, SECTOR_QUADS / config.chunk)  # a chunk of less than a sector brings the rest of it along
    moved = (staged.input * sectors + staged.weights) * WORD_BYTES / gpu.cache_bytes
    own = steps * fragments * unpacked * max(config.warps, SCHEDULERS) / gpu.products
    last = _last(config, workload, geo, gpu)
    chunk = max(products, loads, moved)
    alone = max(own, loads, moved, LATENCY) if config.double_buffer else max(own, loads, moved) + LATENCY
    return chunks * chunk + last, chunks * (alone + BARRIER) + last + LAUNCH


def _last(config: Config, workload: Conv2d, geo: Geometry, gpu: Gpu) -> float:
    """Cycles of the sum over warps and of the epilogue."""
    epilogue, size = workload.epilogue, accumulators(config) * config.warps_m * config.warps_n
    values = size * LANES
    formats = epilogue.formats if epilogue else ()
    moved = sum(values * BITS[format.code] / 8 for format in formats) if formats else values * WORD_BYTES
    operations = 12 + 8 * (len(formats) - 1) if formats else 2
    partial = size * (config.warps_k - 1) * 2  # each is written and read, a bank a lane
    return partial + max(size * operations / SCHEDULERS, moved / gpu.cache_bytes)


def _bytes(workload: Conv2d, geo: Geometry) -> float:
    """Of all operands, each once."""
    n, c, h, w = workload.x_dims
    weights = geo.taps[0] * geo.taps[1] * geo.quads * QUAD * geo.out_channels * WORD_BYTES
    _, _, oh, ow = workload.out_dims
    written = workload.epilogue.formats if workload.epilogue else ()
    values = geo.images * geo.out_channels * oh * ow
    outputs = sum(values * BITS[format.code] / 8 for format in written) if written else values * WORD_BYTES
    return n * c * h * w * workload.weight_bits / 8 + weights + outputs
