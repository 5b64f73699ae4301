"""The loops of one task of Strassen's convolution: the operands, then seven products for each group of channels.

Winograd's form, with halves of pixels, input and output channels as A11 .. B22::

    U2 = A11 B11 + S2 T2        C11 = A11 B11 + A12 B21
    U3 = U2 + S3 T3             C21 = U3 + A22 (-T4)
    U4 = U2 + S1 T1             C22 = U3 + S1 T1         C12 = U4 + S4 B22

A product adds to the accumulators that its sum already has, so only A11 B11, U2, U3 and U4 pass through memory.  S2 and
S3 are 15 and S4 is 30 too large; ``starts`` has what takes that away again, and the bias.  Sums wrap at 2**32.
"""

from collections.abc import Callable

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from schedules.cpu.channel_table import load_scale
from schedules.cpu.codes import store_run
from schedules.cpu.dot4 import layer_dot4
from schedules.cpu.epilogue import finish
from schedules.cpu.intrin import LANES, broadcast_word, load, prefetch, scratch, store, wrapping_add
from schedules.cpu.strassen_geometry import HALF, PRODUCTS, VECTOR, Geometry
from schedules.cpu.strassen_input import combine
from schedules.target import CpuTarget

AHEAD = 4096  # bytes of weights asked for before they are read; the next product's follow each product's
STARTS = 4

Sums = Callable[..., object]  # (register tile, block, pair) -> int32x16


class Kernel:
    """Emits the loops of one task; the fields are what every loop needs."""

    def __init__(self, geo: Geometry, target: CpuTarget, x, weights, starts, table, residual, out):
        self.geo, self.config, self.epilogue = geo, geo.config, geo.workload.epilogue
        self.x, self.weights, self.starts, self.table = x, weights, starts, table
        self.residual, self.out = residual, out
        self.target, self.dot = target, layer_dot4(target, geo.workload)

    def task(self, unit, tile0, share):
        """``tile0``: the task's first register tile of a unit; ``share``: its output channels."""
        config, geo = self.config, self.geo
        self.unit, self.tile0 = unit, tile0
        self.operands = scratch(PRODUCTS * geo.product_bytes, "uint8")
        size = config.tiles * config.tile * config.oc_tile * LANES
        self.first, self.second = scratch(size, "int32"), scratch(size, "int32")
        with T.serial(config.tiles) as tile:
            combine(self.x, self.operands, geo, unit, self._pair(tile), tile)
        with T.serial(config.oc_groups) as index:
            self._group(T.bind(share * config.oc_groups + index))

    def _pair(self, tile):
        """The first pair of one of the task's register tiles."""
        geo, size = self.geo, self.config.tile
        pair = (self.tile0 + tile) * size
        return T.bind(pair if geo.pairs % size == 0 else tirx.min(pair, geo.pairs - size))

    def _group(self, group):
        """All outputs of the task's pixels and a group of output channels, product by product."""
        first, second = self._saved(self.first), self._saved(self.second)
        starts = [self._start(group, row) for row in range(STARTS)]

        def finish(pixel_half: int, channel_half: int):
            return lambda tile, sums: self._finish(sums, group, tile, pixel_half, channel_half)

        def both(tile, sums: Sums):
            self._save(self.first, tile, _sum(sums, first, starts[3]))
            self._finish(_sum(sums, second), group, tile, 1, 1)

        save_first, save_second = (
            lambda tile, sums, buffer=buffer: self._save(buffer, tile, sums) for buffer in (self.first, self.second)
        )
        self._product(group, 0, starts[0], save_first)
        self._product(group, 1, first, finish(0, 0))
        self._product(group, 2, first, save_first)
        self._product(group, 3, first, save_second)
        self._product(group, 4, _sum(second, starts[1]), finish(1, 0))
        self._product(group, 5, starts[2], both)
        self._product(group, 6, first, finish(0, 1))

    def _start(self, group, row: int) -> Sums:
        oc_tile = self.config.oc_tile
        at = T.bind((group * STARTS + row) * (oc_tile * LANES))
        return lambda tile, k, m: load(self.starts, at + k * LANES, "int32x16")

    def _saved(self, buffer) -> Sums:
        return lambda tile, k, m: load(buffer, self._place(tile, k, m), "int32x16")

    def _place(self, tile, k: int, m: int):
        return ((tile * self.config.oc_tile + k) * self.config.tile + m) * LANES

    def _save(self, buffer, tile, sums: Sums):
        for k in range(self.config.oc_tile):
            for m in range(self.config.tile):
                store(buffer, self._place(tile, k, m), sums(tile, k, m))

    def _product(self, group, number: int, before: Sums, then: Callable):
        """``then(tile, before + product)`` for every register tile of the task."""
        config, geo = self.config, self.geo
        oc_tile, words = config.oc_tile, HALF // 4
        weights0 = T.bind((group * PRODUCTS + number) * (geo.matrix_vectors * VECTOR))
        with T.serial(config.tiles) as tile:
            accumulators = [[scratch(LANES, "int32") for _ in range(config.tile)] for _ in range(oc_tile)]
            for k, row in enumerate(accumulators):
                for m, accumulator in enumerate(row):
                    store(accumulator, 0, before(tile, k, m))
            source0 = T.bind(number * geo.product_bytes + tile * (geo.in_blocks * geo.pitch))
            with T.serial(geo.in_blocks) as block:
                source = T.bind(source0 + block * geo.pitch)
                weights = T.bind(weights0 + block * (words * oc_tile * VECTOR))
                for word in range(words):
                    at = weights + word * oc_tile * VECTOR
                    for k in range(oc_tile):
                        prefetch(self.weights, at + AHEAD + k * VECTOR)
                    vectors = [T.bind(load(self.weights, at + k * VECTOR, "int8x64")) for k in range(oc_tile)]
                    for m in range(config.tile):
                        x = T.bind(broadcast_word(self.operands, source + m * HALF + 4 * word))
                        for k, w in enumerate(vectors):
                            accumulator = accumulators[k][m]
                            store(accumulator, 0, self.dot.add(load(accumulator, 0, "int32x16"), [x], [w]))
            then(tile, lambda _, k, m: load(accumulators[k][m], 0, "int32x16"))

    def _finish(self, sums: Sums, group, tile, pixel_half: int, channel_half: int):
        """Requantize the sums of a register tile and write them."""
        geo, config, epilogue = self.geo, self.config, self.epilogue
        pair = self._pair(tile)
        for k in range(config.oc_tile):
            block = T.bind((2 * group + channel_half) * config.oc_tile + k)
            scale = load_scale(self.table, epilogue, block)
            plane = (self.unit * (geo.unit_images * geo.out_blocks) + block) * geo.pixels
            pixel = T.bind(plane + pair + pixel_half * geo.distance(geo.out_blocks))
            values = [sums(tile, k, m) for m in range(config.tile)]
            pixels = [pixel + m for m in range(config.tile)]
            (codes,) = finish(self.target, values, scale, self.residual, pixels, config.tile, epilogue)
            store_run(self.out, pixel, codes, config.tile, epilogue.out)


def _sum(*terms: Sums) -> Sums:
    def total(tile, k, m):
        value = terms[0](tile, k, m)
        for term in terms[1:]:
            value = wrapping_add(value, term(tile, k, m))
        return value

    return total
