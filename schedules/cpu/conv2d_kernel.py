"""The loops of one task of a direct convolution: stage, unpack weights, reduce a register tile, requantize, write."""

from itertools import product

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from schedules.cpu.channel_table import load_bias, load_scale
from schedules.cpu.codes import store_run
from schedules.cpu.conv2d_geometry import Geometry
from schedules.cpu.conv2d_space import Config, unpacks
from schedules.cpu.conv2d_staging import stage, staged_size
from schedules.cpu.dot4 import layer_dot4
from schedules.cpu.epilogue import finish
from schedules.cpu.intrin import LANES, broadcast_word, load, prefetch, scratch, store, view
from schedules.cpu.nibbles import store_nibbles
from schedules.target import CpuTarget
from schedules.workload import Conv2d

NEAR_BLOCKS = 16  # input blocks of a register tile that stay in the first-level cache, with their weights
LINE = 64  # bytes of the cache
IDLE_TURNS = 4  # tiles for each line of weights, above which those take little of a group's time
PREFETCHED_BLOCKS = 4  # of a deeper tile: far enough ahead, and still there when they are read


class Kernel:
    """Emits the loops of one task; the fields are what every loop needs."""

    def __init__(
        self, config: Config, workload: Conv2d, target: CpuTarget, geo: Geometry, x, weights, table, residual, outputs
    ):
        self.config, self.workload, self.target, self.geo = config, workload, target, geo
        self.x, self.weights, self.table, self.residual, self.outputs = x, weights, table, residual, outputs
        self.dot = layer_dot4(target, workload)
        self.tiles = -(-geo.out_width // config.col_tile)  # of a row

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
        stored = geo.taps * geo.words * config.oc_tile * 8 * config.weight_bits(self.workload)  # bytes of a group
        unpacked = scratch(2 * stored, "int8") if unpacks(config, self.workload, self.dot) else None
        with T.serial(config.oc_groups) as index:
            group = T.bind(oc_task * config.oc_groups + index)
            if unpacked is None:
                self.group_weights, self.weights0 = self.weights, T.bind(group * stored)
            else:
                self._unpack(group * stored, unpacked, stored)
                self.group_weights, self.weights0 = unpacked, 0
            with T.serial(config.images) as image:
                first = image if geo.staged else image0 + image
                base = T.bind(first * geo.in_blocks * self.block_bytes)
                self._band(group, image0 + image, row0, base)

    def _unpack(self, first, unpacked, size: int):
        """``size`` bytes of weights to twice as many, as the kernel multiplies them."""
        if self.config.weight_bits(self.workload) == 4:
            store_nibbles(self.weights, first, unpacked, 0, size)
            return
        with T.serial(size // 64) as chunk:
            weights = T.bind(load(self.weights, first + chunk * 64, "int8x64"))
            for number, part in enumerate(self.dot.w(weights)):
                store(unpacked, chunk * 128 + number * 64, view("int8x64", part))

    def _band(self, group, image, row0, base):
        """The rows of a band, ``row_tile`` at a time and what is left one at a time."""
        config, geo = self.config, self.geo
        even = geo.out_height % config.rows == 0
        rows = config.rows if even else T.bind(tirx.min(config.rows, geo.out_height - row0))
        with T.serial(rows // config.row_tile) as index:
            turn = (image % config.images * (config.rows // config.row_tile) + index) * self.tiles
            self._row(group, image, row0, index * config.row_tile, config.row_tile, base, turn)
        if config.row_tile > 1 and not (even and config.rows % config.row_tile == 0):
            left = rows % config.row_tile
            with T.serial(left) as index:
                self._row(group, image, row0, rows - left + index, 1, base, index * self.tiles)

    def _row(self, group, image, row0, row, row_tile: int, base, turn):
        """A row of register tiles; the last tile moves left to end at the edge, computing some pixels twice.

        ``turn``: which of the group's tiles is the first of the row.
        """
        config, geo = self.config, self.geo
        with T.serial(self.tiles) as tile:
            exact = geo.out_width % config.col_tile == 0
            first = tile * config.col_tile
            column = T.bind(first if exact else tirx.min(first, geo.out_width - config.col_tile))
            top = row * geo.strides[0] if geo.staged else (row0 + row) * geo.strides[0]
            start = T.bind(base + (top * self.width + column * geo.strides[1]) * geo.pixel)
            accumulators = self._reduce(group, start, row_tile, T.bind(turn + tile))
            self._finish(accumulators, group, image, row0 + row, column, row_tile)

    def _reduce(self, group, start, row_tile: int, turn) -> list[list]:
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
            ahead = self._input_ahead(source, block, row_tile) + self._weights_ahead(group, tap, words, turn)
            for first in range(0, words, self.dot.words):
                step = range(first, min(first + self.dot.words, words))
                # spread: LLVM moves no load across a prefetch, which keeps it from holding all weights in registers
                for line in [line for word in step for line in ahead[word::words]]:
                    prefetch(*line)
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

    def _input_ahead(self, source, block, row_tile: int) -> list[tuple]:
        """Lines of the same channel block of the next tile, or if that is too far ahead of one soon to come.

        Pieces of a 1x1 convolution's input are too short for the hardware to foresee, and used once a tile.
        """
        config, geo = self.config, self.geo
        if geo.kernel != (1, 1):
            return []
        near = geo.in_blocks * geo.strides[1] <= NEAR_BLOCKS
        blocks = geo.in_blocks if near else PREFETCHED_BLOCKS
        ahead = blocks * self.block_bytes
        next_tile = ahead - geo.in_blocks * self.block_bytes + config.col_tile * geo.strides[1] * geo.pixel
        line = T.bind(source + tirx.Select(block + blocks < geo.in_blocks, ahead, next_tile))
        row_bytes = geo.strides[0] * self.width * geo.pixel
        offsets = product(range(row_tile), range(0, config.col_tile * geo.strides[1] * geo.pixel, LINE))
        return [(self.source, line + row * row_bytes + offset) for row, offset in offsets]

    def _weights_ahead(self, group, tap, words: int, turn) -> list[tuple]:
        """Lines of the next group's weights, a share in every turn of this one: they come from far, and only once."""
        config, geo = self.config, self.geo
        lines = words * config.oc_tile * config.weight_bits(self.workload) // 8
        turns = config.images * (config.rows // config.row_tile) * self.tiles
        share = -(-lines // turns)
        if geo.stem or turns > lines * IDLE_TURNS:
            return []
        first = (group + 1) * (geo.taps * lines * LINE) + tap * (lines * LINE)
        line = T.bind(first + tirx.min(turn * share, lines - share) * LINE)
        return [(self.weights, line + number * LINE) for number in range(share)]

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
                        store(self.outputs[0], (pixel + c) * LANES, value)
                    continue
                row_pixels = [pixel + c for c in range(config.col_tile)]
                made = finish(self.target, values, scale, self.residual, row_pixels, config.col_tile, epilogue)
                for buffer, vectors, format in zip(self.outputs, made, epilogue.outputs, strict=True):
                    store_run(buffer, pixel, vectors, len(values), format)
