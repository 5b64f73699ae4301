"""The loops of one task of a direct convolution: stage, unpack weights, reduce a register tile, requantize, write."""

from itertools import product

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from schedules.cpu.channel_table import load_bias, load_scale
from schedules.cpu.codes import load_codes, store_run
from schedules.cpu.conv2d_geometry import Geometry
from schedules.cpu.conv2d_space import Config, unpacks
from schedules.cpu.conv2d_staging import stage, staged_size
from schedules.cpu.dot4 import layer_dot4
from schedules.cpu.intrin import LANES, broadcast_word, load, prefetch, scratch, signed_nibbles, store, view
from schedules.cpu.requantize import Scale, fast_epilogue, operand_term, sum_of_terms
from schedules.target import CpuTarget
from schedules.workload import Conv2d

NEAR_BLOCKS = 16  # input blocks of a register tile that stay in the first-level cache, with their weights
PREFETCHED_BLOCKS = 4  # of a deeper tile: far enough ahead, and still there when they are read


class Kernel:
    """Emits the loops of one task; the fields are what every loop needs."""

    def __init__(
        self, config: Config, workload: Conv2d, target: CpuTarget, geo: Geometry, x, weights, table, residual, out
    ):
        self.config, self.workload, self.target, self.geo = config, workload, target, geo
        self.x, self.weights, self.table, self.residual, self.out = x, weights, table, residual, out
        self.dot = layer_dot4(target, workload)
        self.fast = workload.epilogue is None or fast_epilogue(workload.epilogue)

    def task(self, image0, band, oc_task):
        config, geo = self.config, self.geo
        row0 = T.bind(band * config.rows)
        if geo.staged:
            source = scratch(staged_size(geo, config.rows, config.images), "uint8")
            packed, zero_point = self.workload.x.packed, self.workload.x_zero_point
            stage(self.x, source, geo, packed, zero_point, image0, row0, config.rows, config.images)
            self.source, self.width, height = source, geo.staged_width, geo.staged_height(config.rows)
        else:
            self.source, self.width, height = self.x, geo.width, geo.height
        self.block_bytes = height * self.width * geo.pixel
        group_bytes = geo.taps * geo.words * config.oc_tile * 64 * self.workload.weight_bits // 8
        unpacked = scratch(2 * group_bytes, "int8") if unpacks(self.workload, self.dot) else None
        with T.serial(config.oc_groups) as index:
            group = T.bind(oc_task * config.oc_groups + index)
            if unpacked is None:
                self.group_weights, self.weights0 = self.weights, T.bind(group * group_bytes)
            else:
                self._unpack(group * group_bytes, unpacked, group_bytes)
                self.group_weights, self.weights0 = unpacked, 0
            with T.serial(config.images) as image:
                first = image if geo.staged else image0 + image
                base = T.bind(first * geo.in_blocks * self.block_bytes)
                self._band(group, image0 + image, row0, base)

    def _unpack(self, packed0, unpacked, size: int):
        with T.serial(size // 64) as chunk:
            packed = T.bind(load(self.weights, packed0 + chunk * 64, "int8x64"))
            four = self.workload.weight_bits == 4
            parts = signed_nibbles(view("int32x16", packed)) if four else self.dot.w(packed)
            for number, part in enumerate(parts):
                store(unpacked, chunk * 128 + number * 64, view("int8x64", part))

    def _band(self, group, image, row0, base):
        """The rows of a band, ``row_tile`` at a time and what is left one at a time."""
        config, geo = self.config, self.geo
        even = geo.out_height % config.rows == 0
        rows = config.rows if even else T.bind(tirx.min(config.rows, geo.out_height - row0))
        with T.serial(rows // config.row_tile) as index:
            self._row(group, image, row0, index * config.row_tile, config.row_tile, base)
        if config.row_tile > 1 and not (even and config.rows % config.row_tile == 0):
            left = rows % config.row_tile
            with T.serial(left) as index:
                self._row(group, image, row0, rows - left + index, 1, base)

    def _row(self, group, image, row0, row, row_tile: int, base):
        """A row of register tiles; the last tile moves left to end at the edge, computing some pixels twice."""
        config, geo = self.config, self.geo
        with T.serial(-(-geo.out_width // config.col_tile)) as tile:
            exact = geo.out_width % config.col_tile == 0
            first = tile * config.col_tile
            column = T.bind(first if exact else tirx.min(first, geo.out_width - config.col_tile))
            top = row * geo.strides[0] if geo.staged else (row0 + row) * geo.strides[0]
            start = T.bind(base + (top * self.width + column * geo.strides[1]) * geo.pixel)
            accumulators = self._reduce(group, start, row_tile)
            self._finish(accumulators, group, image, row0 + row, column, row_tile)

    def _reduce(self, group, start, row_tile: int) -> list[list]:
        """Accumulators [block][pixel] of a register tile after the whole reduction."""
        config, geo = self.config, self.geo
        pixels = [
            (row * geo.strides[0] * self.width + column * geo.strides[1]) * geo.pixel
            for row, column in product(range(row_tile), range(config.col_tile))
        ]
        accumulators = [[scratch(LANES, "int32") for _ in pixels] for _ in range(config.oc_tile)]
        for block, row in enumerate(accumulators):
            bias = load_bias(self.table, self.workload.epilogue, group * config.oc_tile + block)
            for accumulator in row:
                store(accumulator, 0, bias)
        kh, kw = geo.kernel
        # a stem's words are a loop: neighbouring pixels share bytes, and LLVM would keep all of them in registers
        columns, words, column_bytes = (geo.words, 1, 4) if geo.stem else (kw, geo.words, geo.dilation[1] * geo.pixel)
        with T.serial(geo.in_blocks) as block, T.serial(kh) as i, T.serial(columns) as j:
            tap = (block * kh + i) * columns + j
            weights = T.bind(self.weights0 + tap * (words * config.oc_tile * self.dot.parts * 64))
            position = i * (geo.dilation[0] * self.width * geo.pixel) + j * column_bytes
            source = T.bind(start + block * self.block_bytes + position)
            if geo.kernel == (1, 1):
                self._prefetch(source, block, row_tile)
            for first in range(0, words, self.dot.words):
                step = range(first, min(first + self.dot.words, words))
                vectors = [
                    self._weights(weights, [word * config.oc_tile + k for word in step]) for k in range(config.oc_tile)
                ]
                for number, pixel in enumerate(pixels):
                    x = self._codes([source + pixel + 4 * word for word in step])
                    for k, w in enumerate(vectors):
                        accumulator = accumulators[k][number]
                        store(accumulator, 0, self.dot.add(load(accumulator, 0, "int32x16"), x, w))
        return accumulators

    def _codes(self, words: list) -> list:
        """Words of four codes at these bytes, each in all lanes, as they are multiplied."""
        return [T.bind(part) for at in words for part in self.dot.x(broadcast_word(self.source, at))]

    def _weights(self, first, numbers: list[int]) -> list:
        """The numbered vectors of the weights that start at ``first``, as they are multiplied."""
        parts = self.dot.parts
        places = [first + (number * parts + part) * 64 for number in numbers for part in range(parts)]
        dtype = "int8x64" if parts == 1 else "int16x32"
        return [T.bind(view(dtype, load(self.group_weights, at, "int8x64"))) for at in places]

    def _prefetch(self, source, block, row_tile: int):
        """Ask for the same channel block of the next tile, or if that is too far ahead for one soon to come.

        Pieces of a 1x1 convolution's input are too short for the hardware to foresee, and used once a tile.
        """
        config, geo = self.config, self.geo
        near = geo.in_blocks * geo.strides[1] <= NEAR_BLOCKS
        blocks = geo.in_blocks if near else PREFETCHED_BLOCKS
        ahead = blocks * self.block_bytes
        next_tile = ahead - geo.in_blocks * self.block_bytes + config.col_tile * geo.strides[1] * geo.pixel
        line = T.bind(source + tirx.Select(block + blocks < geo.in_blocks, ahead, next_tile))
        for row in range(row_tile):
            first = line + row * geo.strides[0] * self.width * geo.pixel
            prefetch(self.source, first, config.col_tile * geo.strides[1] * geo.pixel)

    def _finish(self, accumulators, group, image, row, column, row_tile: int):
        """Requantize a register tile and write it."""
        geo, epilogue, config = self.geo, self.workload.epilogue, self.config
        for k, pixels in enumerate(accumulators):
            block = group * config.oc_tile + k
            scale = load_scale(self.table, epilogue, block) if epilogue else None
            plane = (image * geo.out_blocks + block) * geo.out_height
            for r in range(row_tile):
                pixel = T.bind((plane + row + r) * geo.out_width + column)
                values = [load(pixels[r * config.col_tile + c], 0, "int32x16") for c in range(config.col_tile)]
                if epilogue is None:
                    for c, value in enumerate(values):
                        store(self.out, (pixel + c) * LANES, value)
                    continue
                codes = [T.bind(self._code(value, scale, pixel + c)) for c, value in enumerate(values)]
                store_run(self.target, self.out, pixel, codes, epilogue.out, epilogue.lo, epilogue.hi)

    def _code(self, value, scale: Scale, pixel):
        epilogue = self.workload.epilogue
        terms = [(value, scale)]
        if epilogue.residual:
            codes = load_codes(self.residual, pixel, epilogue.residual.format)
            terms.append(operand_term(codes, epilogue.residual, self.fast))
        return sum_of_terms(terms, epilogue.zero_point, epilogue.lo, epilogue.hi, self.fast)
