"""The loops of one task of a bilinear convolution: products of every plane, then the outputs of its tiles."""

from itertools import product

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from schedules.cpu.bilinear import Plane
from schedules.cpu.channel_table import load_scale
from schedules.cpu.codes import pack_codes, store_square
from schedules.cpu.epilogue import rescale
from schedules.cpu.intrin import LANES, broadcast_word, load, prefetch, scratch, store, view
from schedules.cpu.requantize_codes import requantize_codes
from schedules.cpu.winograd_geometry import Geometry, Region, product_dot4
from schedules.cpu.winograd_input import combine, stage
from schedules.target import CpuTarget
from schedules.workload import Epilogue

AHEAD = 4096  # bytes of weights asked for before they are read; the next product's follow each product's


class Kernel:
    """Emits the loops of one task; the fields are what every loop needs.  ``epilogue``: of the scaled accumulators."""

    def __init__(
        self, geo: Geometry, target: CpuTarget, epilogue: Epilogue, x, weights, starts, table, residual, outputs
    ):
        self.geo, self.config, self.epilogue = geo, geo.config, epilogue
        self.x, self.weights, self.starts, self.table = x, weights, starts, table
        self.residual, self.outputs = residual, outputs
        self.target, self.dot = target, product_dot4(target, geo.workload)

    def task(self, image0, band0, share):
        """``image0``, ``band0``: the task's first image and tile row; ``share``: its output channels."""
        geo = self.geo
        self.image0, self.band0 = image0, band0
        staged = scratch(geo.staged_bytes, "uint8")
        stage(self.x, staged, geo, image0, T.bind(band0 * geo.rows.step - geo.workload.padding[0]))
        done = 0  # accumulator planes of the regions before
        for region in geo.regions:
            self._region(region, staged, share, done)
            done += region.planes

    def _region(self, region: Region, staged, share, done: int):
        config, geo = self.config, self.geo
        together = geo.combined_slabs(region)
        repeat = min(config.repeat, together)
        combined = scratch(geo.combined_bytes(region), "uint8")
        planes = scratch(region.planes * repeat * region.slab_tiles * config.oc_tile * LANES, "int32")
        with T.serial(-(-region.slabs // together)) as part:
            first = _last_fits(part, together, region.slabs)
            with T.serial(together) as slab:
                combine(staged, combined, geo, region, self._place(region, first + slab), slab)
            with T.serial(config.oc_groups) as index, T.serial(-(-together // repeat)) as turn:
                group = T.bind(share * config.oc_groups + index)
                slab = _last_fits(turn, repeat, together)
                self._multiply(region, combined, planes, group, slab, repeat, done)
                with T.serial(repeat) as number:
                    self._finish(region, planes, group, self._place(region, first + slab + number), number, repeat)

    def _place(self, region: Region, slab) -> tuple:
        """Image of the task, tile row and tile column where a slab begins."""
        across, down = region.slabs_across, region.slabs_down
        row = _last_fits(slab // across % down, region.slab_rows, region.band)
        column = _last_fits(slab % across, region.slab_columns, region.columns.tiles)
        return T.bind(slab // (across * down)), row, column

    def _multiply(self, region: Region, combined, planes, group, slab, repeat: int, done: int):
        """``planes[plane, slab, tile, block, channel]``: the sums of each plane's products, of ``repeat`` slabs."""
        rows, columns = region.rows.algorithm.planes, region.columns.algorithm.planes
        if all(plane.count == 1 for plane in rows + columns):  # then planes, products and weights count up together
            with T.serial(len(rows)) as i, T.serial(len(columns)) as j:
                row = Plane(rows[0].product + i, rows[0].weight + i, 1, ())
                column = Plane(columns[0].product + j, columns[0].weight + j, 1, ())
                number = i * len(columns) + j
                self._plane(region, combined, planes, group, slab, repeat, done, number, row, column)
            return
        for number, (row, column) in enumerate(product(rows, columns)):
            self._plane(region, combined, planes, group, slab, repeat, done, number, row, column)

    def _plane(self, region, combined, planes, group, slab, repeat, done, number, row: Plane, column: Plane):
        config, geo = self.config, self.geo
        oc_tile, tiles, words = config.oc_tile, region.slab_tiles, geo.pixel // 4
        slab_bytes = geo.slab_bytes(region)
        product_bytes = geo.product_bytes(region)
        matrix = geo.slices * words * oc_tile * 64
        start = T.bind((group * sum(r.planes for r in geo.regions) + done + number) * (oc_tile * LANES))
        with T.serial(repeat) as turn:
            accumulators = [[scratch(LANES, "int32") for _ in range(tiles)] for _ in range(oc_tile)]
            for k, vectors in enumerate(accumulators):
                value = T.bind(load(self.starts, start + k * LANES, "int32x16"))
                for accumulator in vectors:
                    store(accumulator, 0, value)
            with T.serial(row.count) as a, T.serial(column.count) as b:
                place = (row.product + a) * len(region.columns.algorithm.inputs) + column.product + b
                source0 = T.bind(place * product_bytes + (slab + turn) * (geo.slices * slab_bytes))
                chosen = (row.weight + a) * len(geo.columns.weights) + column.weight + b
                weights0 = T.bind((group * geo.matrices + chosen) * matrix)
                with T.serial(geo.slices) as part:
                    source = T.bind(source0 + part * slab_bytes)
                    weights = T.bind(weights0 + part * (words * oc_tile * 64))
                    for word in range(0, words, self.dot.words):
                        step = range(word, min(word + self.dot.words, words))
                        for k in range(len(step) * oc_tile):
                            prefetch(self.weights, weights + AHEAD + (word * oc_tile + k) * 64)
                        self._products(accumulators, combined, source, weights, step)
            for k, vectors in enumerate(accumulators):
                for m, accumulator in enumerate(vectors):
                    at = (((number * repeat + turn) * tiles + m) * oc_tile + k) * LANES
                    store(planes, at, load(accumulator, 0, "int32x16"))

    def _products(self, accumulators: list[list], combined, source, weights, words: range):
        """Some words of four channels of every tile times their weights."""
        blocks = len(accumulators)
        vectors = [
            [T.bind(load(self.weights, weights + (word * blocks + k) * 64, "int8x64")) for word in words]
            for k in range(blocks)
        ]
        for m in range(len(accumulators[0])):
            pixel = source + m * self.geo.pixel
            x = [T.bind(broadcast_word(combined, pixel + 4 * word)) for word in words]
            for k, w in enumerate(vectors):
                accumulator = accumulators[k][m]
                store(accumulator, 0, self.dot.add(load(accumulator, 0, "int32x16"), x, w))

    def _finish(self, region: Region, planes, group, place: tuple, number, repeat: int):
        """Sum the planes of a slab to outputs, requantize and write them."""
        config, geo = self.config, self.geo
        rows, columns = region.rows.algorithm, region.columns.algorithm
        _, _, height, width = geo.workload.out_dims
        image, tile_row, tile_column = place
        for k in range(config.oc_tile):
            block = T.bind(group * config.oc_tile + k)
            scale = load_scale(self.table, self.epilogue, block)
            plane = T.bind(((self.image0 + image) * geo.out_blocks + block) * height)
            with T.serial(region.slab_rows) as i, T.serial(region.slab_columns) as j:
                y = T.bind(region.rows.start + (self.band0 + tile_row + i) * rows.outputs)
                x = T.bind(region.columns.start + (tile_column + j) * columns.outputs)
                tile = number * region.slab_tiles + i * region.slab_columns + j
                values = self._outputs(region, planes, tile * config.oc_tile + k, repeat)
                lines = [T.bind((plane + self._inside(y + a, height, a)) * width) for a in range(rows.outputs)]
                codes = [
                    T.bind(rescale(value, scale, self.residual, line + self._inside(x + b, width, b), self.epilogue))
                    for line, line_values in zip(lines, values, strict=True)
                    for b, value in enumerate(line_values)
                ]
                made = [pack_codes(self.target, codes, self.epilogue)]
                if self.epilogue.codes:
                    made.append(requantize_codes(self.target, codes, made[0], self.epilogue))
                starts = [line + x for line in lines]
                if columns.outputs == 1 or width % 2 == 0:
                    self._store(starts, made, columns.outputs, columns.outputs)
                    continue
                with T.If(x + 1 < width):
                    with T.Then():
                        self._store(starts, made, 2, 2)
                    with T.Else():
                        self._store(starts, made, 2, 1)

    def _store(self, lines: list, made: list, width: int, columns: int):
        """The first ``columns`` of a tile's ``width`` columns; ``made``: the vectors of each output.

        Where the last line lies below the output it stands for the one above, which is written after it.
        """
        for buffer, vectors, format in zip(self.outputs, made, self.epilogue.outputs, strict=True):
            store_square(buffer, lines, vectors, width, columns, format)

    def _inside(self, coordinate, extent: int, number: int):
        """The coordinate, or the last one where a tile's second output lies outside."""
        return tirx.min(coordinate, extent - 1) if number and extent % 2 else coordinate

    def _outputs(self, region: Region, planes, place, repeat: int) -> list[list]:
        """``A^T M A`` of a tile and 16 channels."""
        rows, columns = region.rows.algorithm, region.columns.algorithm
        size = repeat * region.slab_tiles * self.config.oc_tile * LANES

        def plane(i, j):
            at = (i * len(columns.planes) + j) * size + place * LANES
            # unsigned, since LLVM takes it that signed sums never leave int32; in between these may
            return T.bind(view("uint32x16", load(planes, at, "int32x16")))

        m = [[plane(i, j) for j in range(len(columns.planes))] for i in range(len(rows.planes))]
        down = [
            [
                T.bind(_sum([line[j] for line in m], [p.signs[a] for p in rows.planes]))
                for j in range(len(columns.planes))
            ]
            for a in range(rows.outputs)
        ]
        return [
            [T.bind(view("int32x16", _sum(line, [p.signs[b] for p in columns.planes]))) for b in range(columns.outputs)]
            for line in down
        ]


def _last_fits(number, size: int, total: int):
    """Where the numbered piece of ``size`` begins, the last one moved back to end at ``total``."""
    return T.bind(number * size if total % size == 0 else tirx.min(number * size, total - size))


def _sum(terms: list, signs: list[int]):
    """Of accumulators, modulo 2**32; a plane with only one sign is positive."""
    total = None
    for sign, term in sorted(zip(signs, terms, strict=True), key=lambda pair: -pair[0]):
        if sign:
            total = term if total is None else total + term if sign > 0 else total - term
    return total
