"""Sizes and places of a 1x1 convolution as a product of matrices that are cut in halves three ways."""

from dataclasses import dataclass

from hawqtvm.qnn.formats import BLOCK
from schedules.workload import Conv2d

VECTOR = 64  # bytes
HALF = BLOCK // 2  # channels of a block that belong to one half of the input channels
PRODUCTS = 7


@dataclass(frozen=True)
class Config:
    tile: int  # pairs of pixels of a register tile
    oc_tile: int  # blocks of 16 output channels of a register tile
    tiles: int  # register tiles of a task
    oc_groups: int  # groups of twice oc_tile blocks of a task


@dataclass(frozen=True)
class Geometry:
    """A workload cut as a config says.

    Pixels come in pairs: one each of two neighbouring images, or of the halves of an image if the batch is odd; the
    middle pixel of an odd number is then computed twice.  A unit is the one or two images of a pair.
    Channels of a block come in halves too, the even and the odd ones of a packed block, else the first and last eight.
    """

    workload: Conv2d
    config: Config

    @property
    def unit_images(self) -> int:
        return 2 - self.workload.batch % 2

    @property
    def units(self) -> int:
        return self.workload.batch // self.unit_images

    @property
    def pixels(self) -> int:
        """Of an image of the output."""
        _, _, height, width = self.workload.out_dims
        return height * width

    @property
    def pairs(self) -> int:
        """Of a unit."""
        return -(-self.pixels * self.unit_images // 2)

    def distance(self, blocks: int) -> int:
        """Output pixels between the two of a pair, in a tensor of ``blocks`` channel blocks."""
        return blocks * self.pixels if self.unit_images == 2 else self.pixels - self.pairs

    @property
    def unit_tiles(self) -> int:
        """Register tiles of a unit; the last moves back to end with it, computing some pairs twice."""
        return -(-self.pairs // self.config.tile)

    @property
    def in_blocks(self) -> int:
        return -(-self.workload.in_channels // BLOCK)

    @property
    def out_blocks(self) -> int:
        return -(-self.workload.out_channels // BLOCK)

    @property
    def groups(self) -> int:
        """Of output channels; the first half of each meets the second one as the halves of a matrix do."""
        return self.out_blocks // (2 * self.config.oc_tile)

    @property
    def pitch(self) -> int:
        """Bytes of a tile's operands of one product and channel block."""
        return -(-self.config.tile * HALF // VECTOR) * VECTOR

    @property
    def product_bytes(self) -> int:
        """Of a task's operands of one product; an odd number of cache lines, lest the products share a few sets."""
        size = self.config.tiles * self.in_blocks * self.pitch
        return size + VECTOR * (1 - size // VECTOR % 2)

    @property
    def matrix_vectors(self) -> int:
        """Vectors of weights of one product and group."""
        return self.in_blocks * HALF // 4 * self.config.oc_tile
