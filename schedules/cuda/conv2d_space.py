"""The knobs of the Tensor Core convolution and which of them are legal."""

from dataclasses import dataclass, replace
from itertools import product

from hawqtvm.qnn.formats import ROWS
from schedules.cuda.conv2d_geometry import QUAD, Geometry, geometry
from schedules.target import CudaTarget
from schedules.workload import Conv2d

LANES = 32
WORD_BYTES = 4
VECTOR = 4  # words of 128 bits
BANKS = 32
STATIC_SHARED = 48 * 1024  # bytes that a kernel may have without asking
MAX_THREADS = 1024
MAX_REGISTERS = 255
SM_REGISTERS = 65536
EPILOGUE_REGISTERS = 12  # a fragment's channels: scales, codes and words
OTHER_REGISTERS = 48  # addresses and loop variables
CHUNKS = (1, 2, 4, 8)
VECTORS = (2, 4)
MOST_WARPS = 16
COVERED = 0.6  # of a tile's outputs, at least


@dataclass(frozen=True)
class Config:
    """A block makes ``warps_m * frags_m`` fragments of pixels by ``warps_n * frags_n`` fragments of 8 channels."""

    warps_m: int  # warps of a block by pixels
    warps_n: int  # and by channels
    warps_k: int  # and by quads of the reduction, summed through shared memory
    frags_m: int  # fragments of 8 rows of a warp
    frags_n: int  # fragments of 8 output channels of a warp
    width: int  # fragments side by side in the rows of a block's pixels
    chunk: int  # quads of the reduction between two barriers, for each tap
    double_buffer: bool  # the next chunk is loaded while one is multiplied
    vector: int  # words of a copy to shared memory
    channels_first: bool  # neighbouring blocks have the same pixels, else the same channels
    unroll: bool  # all taps in one straight line, else a row of the kernel

    @property
    def warps(self) -> int:
        return self.warps_m * self.warps_n * self.warps_k

    @property
    def threads(self) -> int:
        return self.warps * LANES

    @property
    def channels(self) -> int:
        """Output channels of a block."""
        return self.warps_n * self.frags_n * ROWS

    @property
    def height(self) -> int:
        """Rows of a block's pixels."""
        return self.warps_m * self.frags_m // self.width


LEAST = Config(1, 2, 1, 1, 1, 1, 1, False, VECTOR, True, False)  # if it is not legal, none is


@dataclass(frozen=True)
class Tile:
    """What a block keeps in shared memory, in words; the staged columns lie by their place in a stride.

    Neighbouring outputs then read neighbouring rows of words.  A row is an image of a pixel and has an odd number of
    quads, so that any 8 rows in sequence, which ldmatrix reads and 8 threads write at once, lie in different banks.
    A stem's rows are an image's pixels, with images 32/rows banks apart.
    """

    height: int  # staged rows of pixels
    phase: int  # staged columns of each place in a stride
    columns: int
    rows: int  # of words, a multiple of 8
    pitch: int  # words from row to row; of a stem, from image to image
    input: int  # words of a stage
    weights: int


def tile(config: Config, geo: Geometry) -> Tile:
    height, outputs = geo.y.points(config.height), config.width * geo.pixels
    weights = geo.taps[0] * geo.taps[1] * config.chunk * QUAD * config.channels
    if geo.stem:
        reach = (geo.taps[1] * QUAD - 1) * geo.x.dilation  # columns past the kernel have zeros for weights
        columns = (outputs - 1) * geo.x.stride + reach + 1
        step = BANKS // geo.rows
        pitch = height * columns
        pitch += (step - pitch) % BANKS if geo.rows > 1 else 0
        return Tile(height, columns, columns, geo.rows, pitch, geo.rows * pitch, weights)
    phase = -(-geo.x.points(outputs) // geo.x.stride)
    columns = phase * geo.x.stride
    rows = -(-height * columns * geo.rows // ROWS) * ROWS
    pitch = (config.chunk | 1) * QUAD
    return Tile(height, phase, columns, rows, pitch, rows * pitch, weights)


def shared_bytes(config: Config, geo: Geometry) -> int:
    staged = tile(config, geo)
    stages = 2 if config.double_buffer else 1
    return WORD_BYTES * (stages * (staged.input + staged.weights) + partial_words(config))


def partial_words(config: Config) -> int:
    """Of the sums that warps of one tile add up, half of the warps' at a time."""
    return config.warps // 2 * LANES * accumulators(config) if config.warps_k > 1 else 0


def accumulators(config: Config) -> int:
    """Of a lane."""
    return 2 * config.frags_m * config.frags_n


def copies(config: Config, words: int) -> int:
    """A thread's copies of as many words to shared memory."""
    return -(-words // (config.vector * config.threads))


def input_words(config: Config, geo: Geometry) -> int:
    """That are copied for a chunk."""
    return tile(config, geo).rows * config.chunk * QUAD


def registers(config: Config, geo: Geometry, target: CudaTarget) -> int:
    """Of a thread, estimated."""
    addresses = copies(config, input_words(config, geo))
    held = 0
    if config.double_buffer and not target.async_copies:
        held = (addresses + copies(config, tile(config, geo).weights)) * config.vector
    fragments = 3 * (config.frags_m + config.frags_n)  # those of the next steps are loaded ahead
    products = fragments + 2 * addresses + held
    return accumulators(config) + max(products, EPILOGUE_REGISTERS * config.frags_n) + OTHER_REGISTERS


def check(config: Config, workload: Conv2d, target: CudaTarget) -> str | None:
    """Why the config is not legal, or None."""
    return _fault(config, geometry(workload), target)


def _fault(config: Config, geo: Geometry, target: CudaTarget) -> str | None:
    if min(geo.y.out, geo.x.out) < 1:
        return "the output is empty"
    if config.threads > MAX_THREADS:
        return f"more than {MAX_THREADS} threads"
    powers = config.frags_n in (1, 2, 4, 8) and config.vector in (1, 2, 4) and not config.warps_k & config.warps_k - 1
    if not powers:
        return "frags_n, vector and warps_k must be powers of two, the first two at most 8 and 4"
    if config.warps_m * config.frags_m % config.width:
        return "width must divide the fragments of a block"
    if geo.out_channels % config.channels:
        return "a block's channels must divide the output's"
    if geo.quads % config.chunk or config.chunk % config.warps_k:
        return "chunk must divide the quads of a pixel, and warps_k the chunk"
    if config.double_buffer and config.chunk == geo.quads:
        return "one chunk needs no second buffer"
    if config.double_buffer and target.async_copies and config.vector != VECTOR:
        return f"asynchronous copies are of {VECTOR} words"
    if shared_bytes(config, geo) > STATIC_SHARED:
        return f"more than {STATIC_SHARED} bytes of shared memory"
    used = registers(config, geo, target)
    if used > MAX_REGISTERS or used * config.threads > SM_REGISTERS:
        return f"about {used} registers a thread: more than {MAX_REGISTERS}, or {SM_REGISTERS} of a block"
    return None


def space(workload: Conv2d, target: CudaTarget) -> list[Config]:
    """Every legal config of these tiles, with every order of blocks, width of copies and length of straight lines."""
    geo, variants = geometry(workload), list(product(VECTORS, (True, False), (True, False)))
    every = (
        replace(config, vector=vector, channels_first=channels_first, unroll=unroll)
        for config in tiles(workload, target)
        for vector, channels_first, unroll in variants
    )
    return [config for config in every if config.vector == VECTOR or _fault(config, geo, target) is None]


def tiles(workload: Conv2d, target: CudaTarget) -> list[Config]:
    """Legal tiles that are not mostly past the output's edge, with 128-bit copies."""
    geo = geometry(workload)
    chunks = [quads for quads in CHUNKS if geo.quads % quads == 0]
    found = []
    for warps_m, warps_n, warps_k in product((1, 2, 4), (1, 2, 3, 4), (1, 2, 4)):
        if not 2 <= warps_m * warps_n * warps_k <= MOST_WARPS:
            continue
        for frags_m, frags_n, chunk in product((1, 2, 4, 7, 8), (1, 2, 4, 8), chunks):
            if geo.out_channels % (warps_n * frags_n * ROWS) or chunk % warps_k:
                continue
            for width, double_buffer in product(_widths(warps_m * frags_m, geo), (True, False)):
                config = Config(
                    warps_m, warps_n, warps_k, frags_m, frags_n, width, chunk, double_buffer, VECTOR, True, False
                )
                if _fault(config, geo, target) is None:
                    found.append(config)
    return found


def _widths(fragments: int, geo: Geometry) -> list[int]:
    """Divisors that make a tile of which most is output."""
    across = -(-geo.x.out // geo.pixels)
    return [
        width
        for width in range(1, fragments + 1)
        if fragments % width == 0 and _covered(geo.y.out, fragments // width) * _covered(across, width) > COVERED
    ]


def _covered(size: int, step: int) -> float:
    return size / (-(-size // step) * step)
