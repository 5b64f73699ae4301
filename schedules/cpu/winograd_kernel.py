"""The loops of one task of a bilinear convolution: input, products, then the outputs of its tiles."""

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from schedules.cpu.channel_table import load_scale
from schedules.cpu.codes import store_square
from schedules.cpu.epilogue import finish
from schedules.cpu.intrin import LANES, load, scratch, view
from schedules.cpu.winograd_geometry import Geometry, Region
from schedules.cpu.winograd_input import combine, stage
from schedules.cpu.winograd_products import Products
from schedules.target import CpuTarget


class Kernel:
    """Emits the loops of one task; the fields are what every loop needs."""

    def __init__(self, geo: Geometry, target: CpuTarget, x, weights, starts, table, residual, outputs):
        self.geo, self.config, self.epilogue = geo, geo.config, geo.epilogue
        self.x, self.table, self.residual, self.outputs = x, table, residual, outputs
        self.target, self.products = target, Products(geo, target, weights, starts)

    def task(self, image0, band0, share):
        """``image0``, ``band0``: the task's first image and tile row; ``share``: its output channels."""
        geo = self.geo
        self.image0, self.band0 = image0, band0
        staged = scratch(geo.staged_bytes, "uint8")
        stage(self.x, staged, geo, image0, T.bind(band0 * geo.rows.step - geo.workload.padding[0]))
        done = 0  # constants of the regions before
        for region in geo.regions:
            self._region(region, staged, share, done)
            done += region.constants

    def _region(self, region: Region, staged, share, done: int):
        config, geo = self.config, self.geo
        together = geo.combined_slabs(region)
        repeat = min(config.repeat, together)
        combined = scratch(geo.combined_bytes(region), "uint8")
        sums = scratch(region.sums * repeat * region.slab_tiles * config.oc_tile * LANES, "int32")
        with T.serial(-(-region.slabs // together)) as part:
            first = _last_fits(part, together, region.slabs)
            with T.serial(together) as slab:
                combine(staged, combined, geo, region, self._place(region, first + slab), slab)
            with T.serial(config.oc_groups) as index, T.serial(-(-together // repeat)) as turn:
                group = T.bind(share * config.oc_groups + index)
                slab = _last_fits(turn, repeat, together)
                self.products.multiply(region, combined, sums, group, slab, repeat, done)
                with T.serial(repeat) as number:
                    self._finish(region, sums, group, self._place(region, first + slab + number), number, repeat)

    def _place(self, region: Region, slab) -> tuple:
        """Image of the task, tile row and tile column where a slab begins."""
        across, down = region.slabs_across, region.slabs_down
        row = _last_fits(slab // across % down, region.slab_rows, region.band)
        column = _last_fits(slab % across, region.slab_columns, region.columns.tiles)
        return _last_fits(slab // (across * down), region.slab_images, region.images), row, column

    def _finish(self, region: Region, sums, group, place: tuple, number, repeat: int):
        """Add up the rows of a slab to outputs, requantize and write them."""
        config, geo = self.config, self.geo
        rows, columns = region.rows.algorithm, region.columns.algorithm
        _, _, height, width = geo.workload.out_dims
        image, tile_row, tile_column = place
        for k in range(config.oc_tile):
            block = T.bind(group * config.oc_tile + k)
            scale = load_scale(self.table, self.epilogue, block)
            with T.serial(region.slab_images) as n, T.serial(region.slab_rows) as i, T.serial(region.slab_columns) as j:
                plane = T.bind(((self.image0 + image + n) * geo.out_blocks + block) * height)
                y = T.bind(region.rows.start + (self.band0 + tile_row + i) * rows.outputs)
                x = T.bind(region.columns.start + (tile_column + j) * columns.outputs)
                tile = number * region.slab_tiles + (n * region.slab_rows + i) * region.slab_columns + j
                values = self._outputs(region, sums, tile * config.oc_tile + k, repeat)
                lines = [T.bind((plane + self._inside(y + a, height, a)) * width) for a in range(rows.outputs)]
                pixels = [line + self._inside(x + b, width, b) for line in lines for b in range(columns.outputs)]
                neighbours = columns.outputs if width % 2 == 0 else 1
                values = [value for line_values in values for value in line_values]
                made = finish(self.target, values, scale, self.residual, pixels, neighbours, self.epilogue)
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

    def _outputs(self, region: Region, sums, place, repeat: int) -> list[list]:
        """Of a tile and 16 channels, from the sums of its row planes."""
        rows, columns = region.rows.algorithm, region.columns.algorithm
        size = repeat * region.slab_tiles * self.config.oc_tile * LANES

        def row(i, b):
            # unsigned, since LLVM takes it that signed sums never leave int32; in between these may
            at = (i * columns.outputs + b) * size + place * LANES
            return T.bind(view("uint32x16", load(sums, at, "int32x16")))

        terms = [[row(i, b) for b in range(columns.outputs)] for i in range(len(rows.planes))]
        return [
            [
                T.bind(view("int32x16", _sum([line[b] for line in terms], [plane.signs[a] for plane in rows.planes])))
                for b in range(columns.outputs)
            ]
            for a in range(rows.outputs)
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
