"""What a block copies to shared memory for a chunk of the reduction: a tile of input pixels, and weights.

The tile is copied once for all kernel positions; pixels outside the image are the zero point.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import ROWS
from schedules.cpu.intrin import load, splat, store
from schedules.cuda.conv2d_geometry import QUAD, Geometry
from schedules.cuda.conv2d_space import Config, copies, input_words, tile
from schedules.cuda.memory import copy, local, shared, unrolled, when
from schedules.workload import Conv2d

OUTSIDE = -1
SPREAD = {"uint8": 0x01010101, "uint4": 0x11111111}  # a code in every place of a word


class Staging:
    """Emits a block's copies; ``origin``: its images' group and its first output row and column."""

    def __init__(self, config: Config, workload: Conv2d, geo: Geometry, x, weights, thread, origin, out_tile):
        self.config, self.workload, self.geo, self.tile = config, workload, geo, tile(config, geo)
        self.x, self.weights, self.thread, self.origin = x, weights, thread, origin
        fill = workload.x_zero_point * SPREAD[workload.x.code]
        self.fill = fill - (fill >> 31 << 32)  # the same bits as int32
        self.first = out_tile * (geo.quads // config.chunk)  # of the block's chunks of weights
        stages = 2 if config.double_buffer else 1
        self.input = shared("input", stages * self.tile.input)
        self.kernel = shared("kernel", stages * self.tile.weights)
        if not geo.stem:
            self.sources = local("sources", copies(config, input_words(config, geo)))
            self._find_sources()

    def copy(self, chunk, stage, move):
        """From global to shared memory, by ``move(target, at, source, start, words)`` of each vector."""
        width = self.config.vector
        if self.geo.stem:
            self._gather()
        else:
            with self._copies(input_words(self.config, self.geo)) as (number, unit):
                row, word = self._place(unit)
                at = T.bind(stage * self.tile.input + row * self.tile.pitch + word)
                with self._inside(number, self.input, at) as source:
                    move(self.input, at, self.x, source + chunk * (self.config.chunk * QUAD), width)
        with self._copies(self.tile.weights) as (_, unit):
            start = (self.first + chunk) * self.tile.weights + unit * width
            move(self.kernel, stage * self.tile.weights + unit * width, self.weights, start, width)

    def hold(self):
        """Registers for :meth:`fetch`."""
        width, words = self.config.vector, input_words(self.config, self.geo)
        self.held_input = local("held_input", copies(self.config, words) * width)
        self.held_kernel = local("held_kernel", copies(self.config, self.tile.weights) * width)

    def fetch(self, chunk):
        """From global memory to registers."""
        width = self.config.vector
        with unrolled(self.sources.shape[0]) as number, self._inside(number, self.held_input, number * width) as source:
            copy(self.held_input, number * width, self.x, source + chunk * (self.config.chunk * QUAD), width)
        with self._copies(self.tile.weights) as (number, unit):
            at = (self.first + chunk) * self.tile.weights + unit * width
            copy(self.held_kernel, number * width, self.weights, at, width)

    def put(self, stage):
        """From registers to shared memory."""
        width = self.config.vector
        with self._copies(input_words(self.config, self.geo)) as (number, unit):
            row, word = self._place(unit)
            at = stage * self.tile.input + row * self.tile.pitch + word
            copy(self.input, at, self.held_input, number * width, width)
        with self._copies(self.tile.weights) as (number, unit):
            copy(self.kernel, stage * self.tile.weights + unit * width, self.held_kernel, number * width, width)

    @contextmanager
    def _inside(self, number, target, at) -> Iterator:
        """Code for a copy whose source is in the image, and gets it; of others the zero point goes to ``target``."""
        width, source = self.config.vector, T.bind(self.sources[number])
        with T.If(source != OUTSIDE):
            with T.Then():
                yield source * width
            with T.Else():
                store(target, at, splat(self.fill, "int32", width))

    @contextmanager
    def _copies(self, words: int) -> Iterator[tuple]:
        """Over this thread's copies: their number and the block's."""
        count, threads = copies(self.config, words), self.config.threads
        with unrolled(count) as number:
            unit = T.bind(number * threads + self.thread)
            with when(None if words == count * threads * self.config.vector else unit * self.config.vector < words):
                yield number, unit

    def _place(self, unit):
        """Row and word of a copy: neighbouring threads write neighbouring rows, which lie in different banks."""
        in_row = self.config.chunk * QUAD // self.config.vector
        rest = unit // ROWS
        return rest // in_row * ROWS + unit % ROWS, rest % in_row * self.config.vector

    def _find_sources(self):
        """Where in ``x`` each copy of the first chunk starts, in its vectors, or OUTSIDE of the image."""
        geo, (group, _, _) = self.geo, self.origin
        with unrolled(self.sources.shape[0]) as number:
            row, word = self._place(number * self.config.threads + self.thread)
            pixel = T.bind(row // geo.rows)
            line, place = T.bind(pixel // self.tile.columns), T.bind(pixel % self.tile.columns)
            y, x, inside = self._pixel(line, place % self.tile.phase * geo.x.stride + place // self.tile.phase)
            inside = tirx.all(inside, line < self.tile.height)
            source = ((y * geo.x.size + x) * geo.images + group * geo.rows + row % geo.rows) * geo.words + word
            source = source // self.config.vector
            store(self.sources, number, tirx.Select(inside, source, tirx.const(OUTSIDE, "int32")))

    def _pixel(self, line, column):
        """The input pixel of a staged one, and whether there is one."""
        geo, (_, row, first) = self.geo, self.origin
        y = T.bind((row * geo.y.stride + line) * geo.y.step - geo.y.before)
        x = T.bind((first * geo.x.stride + column) * geo.x.step - geo.x.before)
        return y, x, tirx.all(y >= 0, y < geo.y.size, x >= 0, x < geo.x.size)

    def _gather(self):
        """A stem's pixels, channels of plain NCHW, each in a word."""
        geo, (group, _, _), channels = self.geo, self.origin, self.geo.stem
        pixels = geo.rows * self.tile.height * self.tile.columns
        with T.serial(-(-pixels // self.config.threads)) as number:
            index = T.bind(number * self.config.threads + self.thread)
            with when(index < pixels):
                column, rest = T.bind(index % self.tile.columns), T.bind(index // self.tile.columns)
                line, image = T.bind(rest % self.tile.height), T.bind(rest // self.tile.height)
                y, x, inside = self._pixel(line, column)
                there = T.bind(group * geo.rows + image)
                at = T.bind(image * self.tile.pitch + line * self.tile.columns + column)
                store(self.input, at, tirx.const(self.fill, "int32"))
                with when(tirx.all(inside, there < self.workload.batch)):
                    plane = geo.y.size * geo.x.size
                    start = T.bind(there * (channels * plane) + y * geo.x.size + x)
                    codes = [
                        load(self.x, start + c * plane, "uint8").astype("int32") << (8 * c) for c in range(channels)
                    ]
                    word = codes[0]
                    for code in codes[1:]:
                        word = word | code
                    store(self.input, at, word)
