"""Where a direct convolution's operands lie: channel blocks, rows and byte strides, all known when it is built."""

from dataclasses import dataclass

from hawqtvm.qnn.formats import BLOCK
from schedules.workload import Conv2d, Pool

STEM_CHANNELS = 4


@dataclass(frozen=True)
class Geometry:
    """Sizes of a convolution whose input is read by the micro kernel as uint8 pixels.

    A pixel is ``pixel`` bytes.  A tap of the reduction is ``words`` groups of four neighbouring bytes: one kernel
    position of one channel block, or for a stem (few channels, NCHW) a whole kernel row of interleaved channels.
    """

    batch: int
    in_blocks: int
    out_blocks: int
    height: int
    width: int
    out_height: int  # of the accumulators
    out_width: int
    rows: int  # of the output, which tasks share
    pool: Pool | None
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    top: int
    left: int
    stem: int  # channels of a stem, else 0
    staged: bool  # the input is copied to padded and unpacked rows first

    @property
    def pixel(self) -> int:
        return self.stem or BLOCK

    @property
    def words(self) -> int:
        if not self.stem:
            return BLOCK // 4
        words = -(-self.kernel[1] * self.stem // 4)
        return words + words % 2  # an even number, so that 4-bit weights pair up

    @property
    def taps(self) -> int:
        kh, kw = self.kernel
        return kh if self.stem else self.in_blocks * kh * kw

    @property
    def staged_width(self) -> int:
        """Pixels of a staged row."""
        return (self.out_width - 1) * self.strides[1] + (self.kernel[1] - 1) * self.dilation[1] + 1

    def sums(self, rows: int) -> int:
        """Rows of accumulators under ``rows`` output rows."""
        return (rows - 1) * self.pool.strides[0] + self.pool.kernel[0] if self.pool else rows

    def first_sum(self, row):
        """The row of accumulators where those of an output row begin, which a pool's padding puts before the first."""
        return row * self.pool.strides[0] - self.pool.padding[0] if self.pool else row

    def staged_height(self, rows: int) -> int:
        """Input rows under ``rows`` output rows."""
        return (self.sums(rows) - 1) * self.strides[0] + (self.kernel[0] - 1) * self.dilation[0] + 1


def is_stem(workload: Conv2d) -> bool:
    """Few channels: a block of 16 would be mostly zeros, so the kernel takes plain NCHW."""
    return workload.in_channels <= STEM_CHANNELS and workload.dilation[1] == 1 and not workload.x.packed


def geometry(workload: Conv2d) -> Geometry:
    _, out_channels, out_height, out_width = workload.sum_dims
    stem = is_stem(workload)
    return Geometry(
        batch=workload.batch,
        in_blocks=1 if stem else -(-workload.in_channels // BLOCK),
        out_blocks=-(-out_channels // BLOCK),
        height=workload.height,
        width=workload.width,
        out_height=out_height,
        out_width=out_width,
        rows=workload.out_dims[2],
        pool=workload.pool,
        kernel=workload.kernel,
        strides=workload.strides,
        dilation=workload.dilation,
        top=workload.padding[0],
        left=workload.padding[1],
        stem=workload.in_channels if stem else 0,
        staged=stem or workload.x.packed or any(workload.padding),
    )
