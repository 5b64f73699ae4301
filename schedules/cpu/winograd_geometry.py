"""Sizes and offsets of a bilinear convolution's buffers, all known when it is built."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod

from hawqtvm.qnn.formats import BLOCK
from schedules.cpu.bilinear import Axis, Segment, axis, scale_bits, widest
from schedules.cpu.channel_table import MAX_SHIFT
from schedules.cpu.dot4 import Dot4, dot4
from schedules.cuts import even
from schedules.target import CpuTarget
from schedules.workload import Conv2d, Epilogue

VECTOR = 64  # bytes


@dataclass(frozen=True)
class Config:
    tile_rows: int  # rows of tiles of a register tile; above 1 with all columns
    tile_columns: int  # tiles of a row of a register tile
    oc_tile: int  # blocks of 16 output channels of a register tile
    repeat: int  # register tiles that use the weights of a product one after the other
    combined: int  # register tiles whose samples are combined before they are multiplied
    band: int  # rows of tiles of a task
    images: int  # images of a task
    oc_groups: int  # groups of oc_tile blocks of a task
    split: bool  # the odd last row and column are computed apart


@dataclass(frozen=True)
class Region:
    """The tiles of one row segment and one column segment, of the images and tile rows of a task, cut into slabs.

    A slab is the tiles of one register tile, ``slab_images x slab_rows x slab_columns``.  The last one along each moves
    back to end with it, computing some tiles twice.
    """

    rows: Segment
    columns: Segment
    band: int
    images: int
    slab_images: int
    slab_rows: int
    slab_columns: int

    @property
    def slab_tiles(self) -> int:
        return self.slab_images * self.slab_rows * self.slab_columns

    @property
    def slabs_down(self) -> int:
        return -(-self.band // self.slab_rows)

    @property
    def slabs_across(self) -> int:
        return -(-self.columns.tiles // self.slab_columns)

    @property
    def slabs(self) -> int:
        return -(-self.images // self.slab_images) * self.slabs_down * self.slabs_across

    @property
    def sums(self) -> int:
        """Vectors that a block of a tile keeps in memory: what each row plane adds to the outputs of its columns."""
        return len(self.rows.algorithm.planes) * self.columns.algorithm.outputs

    @property
    def constants(self) -> int:
        """Of the steps of all its row planes."""
        return len(self.rows.algorithm.planes) * self.columns.algorithm.constants

    @property
    def products(self) -> int:
        return len(self.rows.algorithm.inputs) * len(self.columns.algorithm.inputs)


@dataclass(frozen=True)
class Geometry:
    """A workload cut as a config says.

    A slice is what one vector holds of several pixels: the even or the odd channels of a packed block, which come
    out of its nibbles without a shuffle, or a whole block.  A staged row keeps its pixels apart by their column
    modulo ``columns.step``, so that the same sample of neighbouring tiles is one vector.
    """

    workload: Conv2d
    config: Config
    rows: Axis
    columns: Axis

    @property
    def pixel(self) -> int:
        """Bytes of a pixel of a slice."""
        return BLOCK // 2 if self.workload.x.packed else BLOCK

    @property
    def vector_pixels(self) -> int:
        return VECTOR // self.pixel

    @property
    def in_blocks(self) -> int:
        return -(-self.workload.in_channels // BLOCK)

    @property
    def out_blocks(self) -> int:
        return -(-self.workload.out_channels // BLOCK)

    @property
    def groups(self) -> int:
        """Of output channels that a register tile shares."""
        return self.out_blocks // self.config.oc_tile

    @property
    def slices(self) -> int:
        return self.in_blocks * BLOCK // self.pixel

    @property
    def matrices(self) -> int:
        """Transformed weights of a pair of channels."""
        return len(self.rows.weights) * len(self.columns.weights)

    @property
    def scale_bits(self) -> int:
        """Outputs are computed times two to this."""
        return scale_bits(self.workload.strides)

    @property
    def epilogue(self) -> Epilogue:
        """Of accumulators that are scaled by a power of two: every shift grows by its exponent."""
        epilogue = self.workload.epilogue
        return replace(
            epilogue,
            min_shift=min(epilogue.min_shift + self.scale_bits, MAX_SHIFT),
            headroom16=max(-1, epilogue.headroom16 - self.scale_bits),
        )

    @cached_property
    def regions(self) -> list[Region]:
        return [self._region(row, column) for row, column in product(self.rows.segments, self.columns.segments)]

    def _region(self, rows: Segment, columns: Segment) -> Region:
        """Where an odd column or row is left, its slabs take more rows and images instead."""
        config = self.config
        tiles, band = config.tile_rows * config.tile_columns, min(config.band, rows.tiles)
        slab_columns = min(config.tile_columns, columns.tiles)
        same = slab_columns == config.tile_columns
        slab_rows = min(config.tile_rows, band) if same else even(band, tiles // slab_columns)
        slab_images = even(config.images, tiles // (slab_rows * slab_columns))
        return Region(rows, columns, band, config.images, slab_images, slab_rows, slab_columns)

    @property
    def constants(self) -> int:
        """Of a group's accumulators."""
        return sum(region.constants for region in self.regions)

    @property
    def staged_rows(self) -> int:
        """Input rows under a task: of its band, or with more segments of the whole image."""
        last = self.rows.segments[-1]
        tiles = self.config.band if len(self.rows.segments) == 1 else last.tiles
        return last.start * self.rows.stride + (tiles - 1) * self.rows.step + last.algorithm.samples

    @property
    def lead(self) -> int:
        """Positions of a phase left of the input."""
        return -(-self.workload.padding[1] // self.columns.step)

    def position(self, column: int) -> tuple[int, int]:
        """Phase and position of an input column."""
        return column % self.columns.step, column // self.columns.step + self.lead

    @cached_property
    def pitch(self) -> int:
        """Positions of a phase of a staged row, with those that a vector past the last tile reads."""
        most = 0
        for segment in self.columns.segments:
            last = segment.start * self.columns.stride - self.workload.padding[1] + segment.algorithm.samples - 1
            most = max(most, self.position(last)[1] + segment.tiles + self.vector_pixels)
        copied = -(-self.workload.width // (self.columns.step * self.vector_pixels)) * self.vector_pixels
        return max(most, self.lead + copied)

    @property
    def row_bytes(self) -> int:
        return self.columns.step * self.pitch * self.pixel

    @property
    def staged_bytes(self) -> int:
        return self.config.images * self.slices * self.staged_rows * self.row_bytes

    def slab_bytes(self, region: Region) -> int:
        """Of one product and slice."""
        return -(-region.slab_tiles * self.pixel // VECTOR) * VECTOR

    def combined_slabs(self, region: Region) -> int:
        return min(self.config.combined, region.slabs)

    def product_bytes(self, region: Region) -> int:
        """Of one product; an odd number of cache lines, lest those of a tile share a few sets of the cache."""
        size = self.combined_slabs(region) * self.slices * self.slab_bytes(region)
        return size + VECTOR * (1 - size // VECTOR % 2)

    def combined_bytes(self, region: Region) -> int:
        return region.products * self.product_bytes(region)


def geometry(config: Config, workload: Conv2d) -> Geometry:
    rows, columns = (
        axis(stride, extent, config.split)
        for stride, extent in zip(workload.strides, workload.out_dims[2:], strict=True)
    )
    return Geometry(workload, config, rows, columns)


def product_dot4(target: CpuTarget, workload: Conv2d) -> Dot4:
    """For any combination of samples and any of weights, however the output is cut into tiles."""
    both = [axis(stride, 2, split=False) for stride in workload.strides]
    codes = max(widest(one.segments[0].algorithm, workload.x.limits[1]) for one in both)
    taps = prod(max(sum(map(abs, signs)) for signs in one.weights) for one in both)
    return dot4(target, 2 * codes * taps * 2 ** (workload.weight_bits - 1))
