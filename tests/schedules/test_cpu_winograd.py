"""Winograd convolutions against int64, over shapes, formats, epilogues, ways to cut the work and extreme values."""

from dataclasses import replace

import numpy as np
import pytest
from cases import VALUES, code_limits, fill, four_bit_conv, layer_constants
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from levels import run
from reference import conv2d, expand, finish, with_garbage
from winograd_cases import STRIDES, configs, workloads

from hawqtvm.qnn.formats import Format
from schedules.cpu import winograd
from schedules.cpu.winograd_geometry import Config, geometry
from schedules.workload import Conv2d, Epilogue

CODES = Format("uint4", "NCHW16c")
PACKED = Format("uint4", "NCHW16c", packed=True)


def outcome(level, config, workload: Conv2d, x, weight, bias, b, c, residual=None):
    """Codes of the kernel and of the reference."""
    epilogue = workload.epilogue
    inputs = [with_garbage(workload.x.store(x), workload.x, workload.in_channels)]
    stored = winograd.constants(config, workload, weight, bias, b, c)
    inputs += expand(winograd.expand(config, workload), stored, level.tvm)
    inputs += [epilogue.residual.format.store(residual)] if residual is not None else []
    out = epilogue.out
    stored = run(winograd.build(config, workload, level), inputs, out.shape(workload.out_dims), out.dtype, level)
    wanted = finish(conv2d(x, weight, bias, workload), epilogue, b, c, residual)
    return out.load(stored, workload.out_channels), wanted


def values(rng, kind: str, workload: Conv2d) -> tuple[np.ndarray, np.ndarray]:
    """Codes and weights."""
    x = fill(rng, kind, *workload.x.limits, workload.x_dims)
    shape = (workload.out_channels, workload.in_channels, *workload.kernel)
    return x, fill(rng, kind, -8, 7, shape, other=True).astype("int8")


GIVEN = given(st.data(), workloads(), st.sampled_from(VALUES), st.integers(0, 2**32))
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # an example takes seconds to compile, shrinking one minutes


@settings(max_examples=10, deadline=None, phases=PHASES)
@GIVEN
def test_equals_int64(level, data, workload, kind, seed):
    assert_equals_int64(level, data, workload, kind, seed)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, phases=PHASES)
@GIVEN
def test_equals_int64_in_many_cases(level, data, workload, kind, seed):
    assert_equals_int64(level, data, workload, kind, seed)


def assert_equals_int64(level, data, workload: Conv2d, kind: str, seed: int):
    rng = np.random.default_rng(seed)
    threads = data.draw(st.sampled_from([1, 2, 3]))
    config = data.draw(configs(workload, level, threads) | st.just(winograd.default(workload, level, threads)))
    assert winograd.check(config, workload, level) is None
    x, weight = values(rng, kind, workload)
    limit = (2**31 - 1) >> workload.headroom
    bias, b, c = layer_constants(data.draw, rng, workload.epilogue, weight, workload.x.limits[1], kind, limit)
    residual = None
    if workload.epilogue.residual:
        residual = fill(rng, kind, *code_limits(workload.epilogue.residual.format), workload.out_dims)
    got, wanted = outcome(level, config, workload, x, weight, bias, b, c, residual)
    np.testing.assert_array_equal(got, wanted)


def layer(**fields) -> Conv2d:
    return four_bit_conv(3, headroom=2, **fields)


def assert_sums_equal(level, config, workload: Conv2d, kind: str):
    """The accumulators to the last bit: a code of 4 bits hides small errors."""
    rng = np.random.default_rng(workload.in_channels)
    x, weight = values(rng, kind, workload)
    out_channels = workload.out_channels
    bias = rng.integers(-1000, 1000, out_channels).astype("int32")
    b, c = np.full(out_channels, 2**30, "int32"), np.full(out_channels, 30, "int32")
    got, wanted = outcome(level, config, workload, x, weight, bias, b, c)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(got, conv2d(x, weight, bias, workload))


def accumulators(config) -> int:
    return config.tile_rows * config.tile_columns * config.oc_tile


@pytest.mark.parametrize(("split", "x"), [(False, CODES), (True, PACKED)], ids=["whole, codes", "split, packed"])
@pytest.mark.parametrize("strides", STRIDES, ids=str)
def test_every_bit_of_the_accumulators(level, strides, x, split):
    workload = layer(strides=strides, x=x)
    space = [config for config in winograd.space(workload, level, 2) if config.split == split]
    assert_sums_equal(level, min(space, key=accumulators), workload, "random")


@pytest.mark.parametrize("kind", ["most and least", "most and most"])
@pytest.mark.parametrize("x", [CODES, PACKED], ids=["codes", "packed"])
def test_the_greatest_products(level, x, kind):
    """60 times -72 in every channel: four words of such pairs leave int16."""
    workload = layer(channels=32, size=(6, 6), out_channels=16, batch=1, x=x)
    assert_sums_equal(level, min(winograd.space(workload, level, 1), key=accumulators), workload, kind)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 1)], ids=str)
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)], ids=str)
def test_outputs_smaller_than_a_tile(level, strides, size):
    workload = layer(size=size, strides=strides)
    first_of = {config.split: config for config in reversed(winograd.space(workload, level, 1))}
    for config in first_of.values():
        assert_sums_equal(level, config, workload, "random")


@pytest.mark.parametrize("x", [CODES, PACKED], ids=["codes", "packed"])
@pytest.mark.parametrize(
    ("width", "config"),
    [
        (10, Config(1, 4, 1, repeat=3, combined=4, band=3, images=1, oc_groups=1, split=False)),
        (4, Config(2, 3, 1, repeat=2, combined=3, band=3, images=2, oc_groups=3, split=False)),
    ],
    ids=["parts of a row", "two rows"],
)
def test_pieces_that_do_not_divide(level, width, config, x):
    """Five rows of six or three tiles, both last ones half outside; the padding is neither 0 nor alike on all sides."""
    workload = replace(layer(size=(8, width), x=x), padding=(0, 3, 3, 0), x_zero_point=5)
    assert winograd.check(config, workload, level) is None
    assert_sums_equal(level, config, workload, "random")


@pytest.mark.parametrize("x", [CODES, PACKED], ids=["codes", "packed"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)], ids=str)
@pytest.mark.parametrize(("tile_rows", "images"), [(1, [1, 1, 1, 2]), (2, [1, 2, 2, 3])], ids=["row", "square"])
def test_odd_ends_of_several_images_in_one_register_tile(level, tile_rows, images, strides, x):
    """Of five images; no number of them but one divides that."""
    config = Config(tile_rows, 2, 1, repeat=2, combined=3, band=2, images=5, oc_groups=1, split=True)
    workload = layer(size=(5 * strides[0], 5 * strides[1]), strides=strides, batch=5, x=x)
    assert winograd.check(config, workload, level) is None
    assert [region.slab_images for region in geometry(config, workload).regions] == images
    assert_sums_equal(level, config, workload, "random")


@pytest.mark.slow
@pytest.mark.parametrize("x", [CODES, PACKED], ids=["codes", "packed"])
@pytest.mark.parametrize("strides", STRIDES, ids=str)
def test_configs_all_over_a_space(level, strides, x):
    workload = layer(channels=16, size=(14, 13), out_channels=64, strides=strides, x=x)
    space = winograd.space(workload, level, 2)
    for config in space[:: max(1, len(space) // 12)]:
        assert_sums_equal(level, config, workload, "ends")


@pytest.mark.parametrize("shift", [31, 33])
def test_rounds_exact_halves_up(level, shift):
    """A bias of odd multiples of half a step, nothing else: every result lies between two codes."""
    half = 1 << (shift - 31)
    bias = (half * (2 * np.arange(-16, 16) + 1)).astype("int32")
    got, wanted = without_input(level, shift, bias, 2**30, np.full(32, shift))
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(got[0, :, 0, 0], np.arange(-15, 17))


def test_the_greatest_shifts_and_accumulators(level):
    """The scale adds two to a shift, and 62 is the greatest that int64 takes."""
    c = np.repeat([59, 60, 61, 62], 8)
    bias = np.tile(np.linspace(-(2**29), 2**29 - 1, 8), 4).astype("int32")
    got, wanted = without_input(level, 33, bias, 2**31 - 1, c)
    np.testing.assert_array_equal(got, wanted)
    assert got[:, c == 60].any() and not got[:, c > 60].any()


def test_shift_below_the_promised_least_is_refused(level):
    with pytest.raises(ValueError, match="shifts"):
        without_input(level, 40, np.zeros(32, "int32"), 2**30, np.full(32, 39))


def without_input(level, min_shift: int, bias, b: int, c):
    """int16 codes of the kernel and of the reference, of 32 channels, where all weights and codes are 0."""
    epilogue = Epilogue(Format("int16", "NCHW16c"), 0, -(2**15), 2**15 - 1, min_shift)
    workload = layer(size=(4, 4), out_channels=32, batch=1, epilogue=epilogue)
    weight = np.zeros((32, workload.in_channels, 3, 3), "int8")
    config = min(winograd.space(workload, level, 1), key=accumulators)
    return outcome(level, config, workload, np.zeros(workload.x_dims), weight, bias, np.full(32, b), c)


RESNET = [(64, 56, 64, 1), (128, 28, 128, 1), (256, 14, 256, 1), (512, 7, 512, 1), (128, 56, 128, 2), (512, 14, 512, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["most and least", "most and most", "ends"])
@pytest.mark.parametrize(("channels", "size", "out_channels", "stride"), [*RESNET, (2048, 7, 64, 1), (2048, 7, 64, 2)])
def test_large_layers_at_their_extremes(level, channels, size, out_channels, stride, kind):
    workload = layer(channels=channels, size=(size, size), out_channels=out_channels, batch=8, strides=(stride, stride))
    space = winograd.space(workload, level, 2)
    default = winograd.default(workload, level, 2)
    other = next((config for config in space if config.split != default.split), space[-1])
    for config in (default, other):
        assert_sums_equal(level, config, workload, kind)
