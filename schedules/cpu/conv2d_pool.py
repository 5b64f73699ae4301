"""A stem whose max pool is part of it, before the epilogue: of a window only the greatest accumulator is requantized.

That changes no code, for requantization never turns an order round.  A row of accumulators at a time goes to a line of
a ring; after the last one under a row of the output, that row is made.
"""

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from schedules.cpu.channel_table import load_scale
from schedules.cpu.codes import store_run
from schedules.cpu.conv2d_geometry import is_stem
from schedules.cpu.conv2d_kernel import Kernel
from schedules.cpu.epilogue import finish
from schedules.cpu.intrin import LANES, load, scratch, store
from schedules.workload import Conv2d

GROUP = 4  # windows across: a vector of their codes, which share columns of accumulators


def poolable(workload: Conv2d) -> bool:
    """Whether :class:`PooledKernel` makes the pool: of a stem with an epilogue, without a residual or gaps."""
    epilogue, pool = workload.epilogue, workload.pool
    gaps = any(stride > extent for stride, extent in zip(pool.strides, pool.kernel, strict=True))
    return is_stem(workload) and epilogue is not None and epilogue.residual is None and not gaps


class PooledKernel(Kernel):
    def task(self, image0, band, oc_task):
        pool, geo = self.workload.pool, self.geo
        self.lines = scratch(pool.kernel[0] * self.config.oc_tile * geo.out_width * LANES, "int32")
        super().task(image0, band, oc_task)

    def _band(self, group, image, row0, base):
        """A row of accumulators at a time, and those of the output that they complete."""
        config, geo, (height, _) = self.config, self.geo, self.workload.pool.kernel
        even = geo.rows % config.rows == 0
        rows = config.rows if even else T.bind(tirx.min(config.rows, geo.rows - row0))
        with T.serial(geo.sums(rows)) as line:
            self._row(group, image, 0, line, 1, base, 0)
            past, step = line - (height - 1), geo.pool.strides[0]
            with T.If(T.And(past >= 0, past % step == 0)), T.Then():
                self._maxima(group, image, T.bind(row0 + past // step), T.bind(geo.first_sum(row0)))

    def _finish(self, accumulators, group, image, row, column, row_tile: int):
        """Put a register tile's accumulators into the line of their row."""
        for k, pixels in enumerate(accumulators):
            start = T.bind(self._place(row, k, column))
            for number, accumulator in enumerate(pixels):
                store(self.lines, start + number * LANES, load(accumulator, 0, "int32x16"))

    def _place(self, row, k: int, column):
        """Where the lines have 16 channels of an accumulator; ``row`` counts from the band's first."""
        line = row % self.workload.pool.kernel[0] * self.config.oc_tile + k
        return (line * self.geo.out_width + column) * LANES

    def _maxima(self, group, image, row, first_sum):
        """A row of the output from the lines under it; ``first_sum``: which row of accumulators the band's first is."""
        geo, epilogue, pool = self.geo, self.workload.epilogue, self.workload.pool
        width = self.workload.out_dims[3]
        # a row of padding stands for the nearest of the window's own
        inside = [_within(geo.first_sum(row) + i, geo.out_height) - first_sum for i in range(pool.kernel[0])]
        rows, size = [T.bind(line) for line in inside], min(GROUP, width)
        for k in range(self.config.oc_tile):
            block = T.bind(group * self.config.oc_tile + k)
            scale = load_scale(self.table, epilogue, block)
            start = T.bind(((image * geo.out_blocks + block) * geo.rows + row) * width)
            with T.serial(-(-width // size)) as number:
                column = T.bind(number * size if width % size == 0 else tirx.min(number * size, width - size))
                values = self._windows(rows, k, column * pool.strides[1] - pool.padding[1], size)
                pixels = [start + column + c for c in range(size)]
                made = finish(self.target, values, scale, None, pixels, size, epilogue)
                for buffer, vectors, format in zip(self.outputs, made, epilogue.outputs, strict=True):
                    store_run(buffer, pixels[0], vectors, size, format)

    def _windows(self, rows: list, k: int, column, count: int) -> list:
        """The maxima of ``count`` windows, the first of which begins at a column; down, then across."""
        (_, width), (_, step) = self.workload.pool.kernel, self.workload.pool.strides
        tall = []
        for offset in range((count - 1) * step + width):
            at = _within(column + offset, self.geo.out_width)
            tall.append(_greatest([load(self.lines, self._place(row, k, at), "int32x16") for row in rows]))
        return [_greatest(tall[first : first + width]) for first in range(0, count * step, step)]


def _within(coordinate, extent: int):
    return tirx.min(tirx.max(coordinate, 0), extent - 1)


def _greatest(vectors: list):
    total = vectors[0]
    for vector in vectors[1:]:
        total = tirx.max(total, vector)
    return T.bind(total)
