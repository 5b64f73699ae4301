"""Hypothesis strategies of the 3x3 convolutions that go to Winograd, and of the ways to cut them up."""

from cases import epilogues
from hypothesis import strategies as st

from hawqtvm.qnn.formats import Format
from schedules.cpu import winograd
from schedules.cpu.winograd_geometry import Config, geometry, product_dot4
from schedules.target import CpuTarget, find_target
from schedules.workload import Conv2d

VNNI = find_target("avx512-vnni")
STRIDES = [(1, 1), (2, 2), (1, 2), (2, 1)]
ACCUMULATORS = 8  # of the configs that no space has: LLVM takes long for more


@st.composite
def workloads(draw) -> Conv2d:
    """Often with a zero point of 0 and padding all around, as the split of odd sizes wants it."""
    strides = draw(st.sampled_from([(1, 1), *STRIDES]))
    padding = draw(st.just((1, 1, 1, 1)) | st.tuples(*[st.integers(0, 3)] * 4))
    height, width = (draw(st.integers(max(1, 3 - sum(padding[i::2])), 20)) for i in (0, 1))
    return Conv2d(
        batch=draw(st.integers(1, 9)),
        in_channels=draw(st.integers(1, 70)),
        height=height,
        width=width,
        out_channels=draw(st.integers(1, 100)),
        kernel=(3, 3),
        strides=strides,
        padding=padding,
        dilation=(1, 1),
        groups=1,
        x=Format("uint4", "NCHW16c", packed=draw(st.booleans())),
        x_zero_point=draw(st.just(0) | st.integers(0, 15)),
        weight_bits=4,
        epilogue=draw(epilogues().filter(bool)),
        headroom=strides.count(1),
    )


@st.composite
def configs(draw, workload: Conv2d, target: CpuTarget, threads: int) -> Config:
    """One of the space, or any that is legal: a tuner looks at the first, both must be exact."""
    space = winograd.space(workload, target, threads)
    split = draw(st.sampled_from(sorted({config.split for config in space})))
    if draw(st.booleans()):
        return draw(st.sampled_from([config for config in space if config.split == split]))
    geo = geometry(next(config for config in space if config.split == split), workload)
    rows, columns = geo.rows.segments[0].tiles, geo.columns.segments[0].tiles
    most = min(ACCUMULATORS, product_dot4(target, workload).accumulators)
    oc_tile = draw(divisors(geo.out_blocks, 4))
    tile_columns = draw(st.integers(1, min(columns, most // oc_tile)))
    most_rows = min(rows, most // (tile_columns * oc_tile)) if tile_columns == columns else 1
    tile_rows = draw(st.integers(1, most_rows))
    band = rows if split else draw(st.integers(tile_rows, rows))
    images = draw(divisors(workload.batch, workload.batch))
    slabs = images * -(-band // tile_rows) * -(-columns // tile_columns)
    combined = draw(st.integers(1, slabs))
    repeat = draw(st.integers(1, combined))
    oc_groups = draw(divisors(geo.out_blocks // oc_tile, geo.out_blocks))
    return Config(tile_rows, tile_columns, oc_tile, repeat, combined, band, images, oc_groups, split)


def divisors(number: int, most: int):
    """The divisors of a number, up to ``most``."""
    return st.sampled_from([size for size in range(1, most + 1) if number % size == 0])
