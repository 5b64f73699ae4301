"""The products of a bilinear convolution: combined samples times combined weights, summed over the input channels."""

from itertools import product

from tvm.tirx.script.builder import ir as T

from schedules.cpu.bilinear import Plane, Sink, Source
from schedules.cpu.intrin import LANES, broadcast_word, load, prefetch, scratch, store, view, wrapping_add
from schedules.cpu.winograd_geometry import VECTOR, Geometry, Region, product_dot4
from schedules.target import CpuTarget

AHEAD = 4096  # bytes of weights asked for before they are read; the next product's follow each product's
SUMS = "int32x16"


class Products:
    """Emits ``sums[row plane, output column, slab, tile, block, channel]``, int32."""

    def __init__(self, geo: Geometry, target: CpuTarget, weights, starts):
        self.geo, self.oc_tile = geo, geo.config.oc_tile
        self.weights, self.starts = weights, starts
        self.dot = product_dot4(target, geo.workload)
        self.words = geo.pixel // 4  # of a slice

    def multiply(self, region: Region, combined, sums, group, slab, repeat: int, done: int):
        """All sums of ``repeat`` slabs from ``slab`` on; ``done``: constants of the regions before."""
        start = T.bind((group * self.geo.constants + done) * (self.oc_tile * LANES))
        rows = region.rows.algorithm.planes
        if all(row.count == 1 for row in rows):  # then planes, products and weights count up together
            with T.serial(len(rows)) as i:
                row = Plane(rows[0].product + i, rows[0].weight + i, 1, ())
                self._row(region, combined, sums, group, slab, repeat, start, i, row)
            return
        for i, row in enumerate(rows):
            self._row(region, combined, sums, group, slab, repeat, start, i, row)

    def _row(self, region: Region, combined, sums, group, slab, repeat: int, start, i, row: Plane):
        """The steps of one row plane."""
        algorithm, tiles = region.columns.algorithm, region.slab_tiles
        inside = list(product(range(self.oc_tile), range(tiles)))
        with T.serial(repeat) as turn:
            accumulators = [[scratch(LANES, "int32") for _ in range(tiles)] for _ in range(self.oc_tile)]
            saved: dict = {}  # LLVM keeps them on the stack
            constant = T.bind(start + i * (algorithm.constants * self.oc_tile * LANES))
            for step in algorithm.steps:
                if step.source is not Source.KEPT:
                    self._begin(accumulators, constant, saved if step.source is Source.SAVED else {})
                    constant = T.bind(constant + self.oc_tile * LANES)
                self._add(accumulators, region, combined, group, slab + turn, row, algorithm.planes[step.plane])
                if isinstance(step.sink, int):
                    place = T.bind(((i * algorithm.outputs + step.sink) * repeat + turn) * (len(inside) * LANES))
                    for k, m in inside:
                        store(sums, place + (m * self.oc_tile + k) * LANES, load(accumulators[k][m], 0, SUMS))
                    continue
                for k, m in inside:
                    value = T.bind(load(accumulators[k][m], 0, SUMS))
                    saved[k, m] = T.bind(_less_twice(value, saved[k, m])) if step.sink is Sink.DIFFERENCE else value

    def _begin(self, accumulators: list[list], constant, saved: dict):
        """Constants, and what was saved."""
        for k, vectors in enumerate(accumulators):
            value = T.bind(load(self.starts, constant + k * LANES, SUMS))
            for m, accumulator in enumerate(vectors):
                store(accumulator, 0, wrapping_add(value, saved[k, m]) if saved else value)

    def _add(self, accumulators: list[list], region: Region, combined, group, slab, row: Plane, column: Plane):
        """The products of a row plane and a column plane."""
        geo = self.geo
        slice_weights = self.words * self.oc_tile * VECTOR
        with T.serial(row.count) as a, T.serial(column.count) as b:
            place = (row.product + a) * len(region.columns.algorithm.inputs) + column.product + b
            samples = T.bind(place * geo.product_bytes(region) + slab * (geo.slices * geo.slab_bytes(region)))
            chosen = (row.weight + a) * len(geo.columns.weights) + column.weight + b
            weights = T.bind((group * geo.matrices + chosen) * (geo.slices * slice_weights))
            with T.serial(geo.slices) as part:
                source = T.bind(samples + part * geo.slab_bytes(region))
                weight = T.bind(weights + part * slice_weights)
                for word in range(0, self.words, self.dot.words):
                    self._multiply_words(
                        accumulators, combined, source, weight, range(word, min(word + self.dot.words, self.words))
                    )

    def _multiply_words(self, accumulators: list[list], combined, source, weight, words: range):
        """Some words of four channels of every tile times their weights."""
        places = [[weight + (word * self.oc_tile + k) * VECTOR for word in words] for k in range(self.oc_tile)]
        for place in sum(places, []):
            prefetch(self.weights, place + AHEAD)
        vectors = [[T.bind(load(self.weights, place, "int8x64")) for place in line] for line in places]
        for m in range(len(accumulators[0])):
            pixel = source + m * self.geo.pixel
            x = [T.bind(broadcast_word(combined, pixel + 4 * word)) for word in words]
            for k, w in enumerate(vectors):
                accumulator = accumulators[k][m]
                store(accumulator, 0, self.dot.add(load(accumulator, 0, SUMS), x, w))


def _less_twice(value, saved):
    """int32 ``value - 2 * saved``, modulo 2**32."""
    a, b = (view("uint32x16", vector) for vector in (value, saved))
    return view(SUMS, a - (b + b))
