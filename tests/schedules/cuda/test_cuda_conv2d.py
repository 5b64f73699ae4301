"""The Tensor Core convolution against int64, over shapes, formats, epilogues, configs and extreme values."""

from dataclasses import replace

import numpy as np
import pytest
from cases import VALUES, WORDS, code_limits, epilogues, fill, layer_constants, requantized
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_core import ARCHES, outcome

from hawqtvm.emulator.lowered import lower
from hawqtvm.errors import CheckFailed
from hawqtvm.qnn.formats import Format
from schedules.cuda import conv2d_direct
from schedules.cuda.conv2d_geometry import geometry
from schedules.cuda.conv2d_space import Config, shared_bytes, tile, tiles
from schedules.target import find_target
from schedules.workload import Conv2d, Epilogue, Rescaled

T4 = find_target("sm_75")
NIBBLES, BYTES, WIDE = WORDS[:3]
STEM = Format("uint8")
BARRIER = "__syncthreads();"


def extent(draw, kernel: int, dilation: int, before: int, after: int) -> int:
    """A height or width that leaves at least one output."""
    least = max(1, dilation * (kernel - 1) + 1 - before - after)
    return draw(st.integers(least, least + 9))


@st.composite
def workloads(draw) -> Conv2d:
    x = draw(st.sampled_from([NIBBLES, NIBBLES, BYTES, BYTES, STEM]))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (3, 3), (1, 4), (5, 2), (7, 7)]))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * 2))
    padding = draw(st.just((0, 0, 0, 0)) | st.tuples(*[st.integers(0, 3)] * 4))
    epilogue = draw(epilogues(tuple(WORDS)))
    if epilogue and draw(st.booleans()):
        epilogue = replace(epilogue, codes=draw(requantized(epilogue.out, WORDS)))
    return Conv2d(
        batch=draw(st.integers(1, 9)),
        in_channels=draw(st.integers(1, 4) if x == STEM else st.integers(5, 140)),
        height=extent(draw, kernel[0], dilation[0], padding[0], padding[2]),
        width=extent(draw, kernel[1], dilation[1], padding[1], padding[3]),
        out_channels=draw(st.integers(1, 100)),
        kernel=kernel,
        strides=draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2), (3, 1)])),
        padding=padding,
        dilation=dilation,
        groups=1,
        x=x,
        x_zero_point=draw(st.integers(0, x.limits[1])),
        weight_bits=4 if x == NIBBLES else 8,
        epilogue=epilogue,
    )


@st.composite
def configs(draw, workload: Conv2d, arch: str) -> Config:
    """A legal config with few products a thread."""
    geo, target = geometry(workload), find_target(arch)
    knobs = st.tuples(
        *[st.sampled_from([1, 2])] * 2,
        st.sampled_from([1, 1, 2, 4]),
        st.integers(1, 5),
        st.sampled_from([1, 2, 4, 8]),
        st.integers(1, 4),
        st.sampled_from([quads for quads in (1, 2, 4) if geo.quads % quads == 0]),
        st.booleans(),
        st.sampled_from([4, 4, 4, 1, 2]),
        *[st.booleans()] * 2,
    )
    drawn = knobs.map(lambda knobs: Config(*knobs))
    return draw(drawn.filter(lambda config: conv2d_direct.check(config, workload, target) is None))


def assert_exact(data, arch: str, workload: Conv2d, config: Config, kind: str, seed: int) -> None:
    rng, epilogue = np.random.default_rng(seed), workload.epilogue
    half = 1 << (workload.weight_bits - 1)
    x = fill(rng, kind, *workload.x.limits, workload.x_dims)
    shape = (workload.out_channels, workload.in_channels, *workload.kernel)
    weight = fill(rng, kind, -half, half - 1, shape, other=True).astype("int8")
    bias, b, c = layer_constants(data.draw, rng, epilogue, weight, workload.x.limits[1], kind)
    residual = None
    if epilogue and epilogue.residual:
        residual = fill(rng, kind, *code_limits(epilogue.residual.format), workload.out_dims)
    for got, wanted in outcome(arch, config, workload, x, weight, bias, b, c, residual):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("arch", ARCHES)
@settings(max_examples=10, deadline=None)
@given(st.data(), workloads(), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_equals_int64(arch, data, workload, kind, seed):
    assert_exact(data, arch, workload, data.draw(configs(workload, arch)), kind, seed)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHES)
@settings(max_examples=150, deadline=None)
@given(st.data(), workloads(), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_equals_int64_at_length(arch, data, workload, kind, seed):
    assert_exact(data, arch, workload, data.draw(configs(workload, arch)), kind, seed)


def layer(x=BYTES, channels=64, size=7, out_channels=64, kernel=3, stride=1, batch=8, epilogue=None) -> Conv2d:
    return Conv2d(
        batch=batch,
        in_channels=channels,
        height=size,
        width=size,
        out_channels=out_channels,
        kernel=(kernel, kernel),
        strides=(stride, stride),
        padding=(kernel // 2,) * 4,
        dilation=(1, 1),
        groups=1,
        x=x,
        x_zero_point=0,
        weight_bits=4 if x == NIBBLES else 8,
        epilogue=epilogue,
    )


@pytest.mark.parametrize("x", [NIBBLES, BYTES], ids=["4 bits", "8 bits"])
@settings(max_examples=3, deadline=None)
@given(st.data(), st.integers(0, 2**32))
def test_configs_of_the_space(x, data, seed):
    """With a residual and a second output, as ResNet's blocks end."""
    codes = data.draw(requantized(WIDE, [x]))
    epilogue = Epilogue(WIDE, 0, *WIDE.limits, 36, Rescaled(WIDE, 0, 2**30 + 12345, 37), codes)
    workload = layer(x, epilogue=epilogue)
    space = conv2d_direct.space(workload, T4, 1)
    config = data.draw(st.sampled_from(space) | st.just(conv2d_direct.default(workload, T4, 1)))
    assert_exact(data, "sm_75", workload, config, "random", seed)


@pytest.mark.parametrize("shift", [32, 33, 40])
def test_rounds_exact_halves_up(shift):
    """A bias of odd multiples of half a step, nothing else: every result lies between two codes."""
    workload = layer(channels=32, out_channels=32, kernel=1, size=2, epilogue=Epilogue(WIDE, 0, *WIDE.limits, shift))
    half = 1 << (shift - 31)
    bias = (half * (2 * np.arange(-16, 16) + 1)).astype("int32")
    b, c = np.full(32, 2**30, "int32"), np.full(32, shift, "int32")
    weight, x = np.zeros((32, 32, 1, 1), "int8"), np.zeros(workload.x_dims, "int64")
    config = conv2d_direct.default(workload, T4, 1)
    ((got, wanted),) = outcome("sm_75", config, workload, x, weight, bias, b, c)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(got[0, :, 0, 0], np.arange(-15, 17))


@pytest.mark.parametrize("x", [NIBBLES, BYTES], ids=["4 bits", "8 bits"])
@pytest.mark.parametrize(
    "shape", [(64, 56, 64, 1), (64, 56, 128, 2), (128, 28, 128, 1), (256, 14, 512, 2), (512, 7, 512, 1)], ids=str
)
def test_many_configs_for_each_layer_of_resnet18(x, shape):
    channels, size, out_channels, stride = shape
    epilogue = Epilogue(x, 0, *x.limits, 36)
    workload = layer(x, channels, size, out_channels, 3, stride, epilogue=epilogue)
    space = conv2d_direct.space(workload, T4, 1)
    assert len(space) == len(set(space)) >= 500
    assert all(conv2d_direct.check(config, workload, T4) is None for config in space[::50])


def test_of_configs_that_wait_for_the_same_bytes_the_one_with_less_work_is_taken():
    workload = layer(channels=64, size=56, out_channels=256, kernel=1, epilogue=Epilogue(WIDE, 0, *WIDE.limits, 36))
    best = conv2d_direct.default(workload, T4, 1)
    small = replace(best, warps_m=1, warps_n=1, warps_k=2, frags_m=2, frags_n=2, width=2)
    assert conv2d_direct.check(small, workload, T4) is None
    assert conv2d_direct.cycles(best, workload, T4, 1) < conv2d_direct.cycles(small, workload, T4, 1)


def test_of_equal_estimates_the_tile_with_least_shared_memory_is_taken():
    workload = layer(size=56, epilogue=Epilogue(BYTES, 0, 0, 255, 36, Rescaled(WIDE, 0, 2**30, 37)))
    best, geo = conv2d_direct.default(workload, T4, 1), geometry(workload)
    least = conv2d_direct.cycles(best, workload, T4, 1)
    equal = [c for c in tiles(workload, T4) if conv2d_direct.cycles(c, workload, T4, 1) == least]
    shared = {shared_bytes(config, geo) for config in equal}
    assert len(shared) > 1
    assert shared_bytes(best, geo) == min(shared)


@pytest.mark.parametrize("workload", [layer(), layer(NIBBLES, stride=2), layer(batch=1)], ids=["8", "4", "batch 1"])
def test_no_bank_conflicts(workload):
    """Eight rows in sequence, which one load reads, are in different banks."""
    geo = geometry(workload)
    for config in conv2d_direct.space(workload, T4, 1)[::20]:
        assert len(set(np.arange(8) * tile(config, geo).pitch % 32)) == 8


@pytest.mark.parametrize(
    "arch, warps_k, double_buffer",
    [("sm_75", 1, False), ("sm_75", 1, True), ("sm_80", 1, True), ("sm_75", 2, False)],
    ids=["one buffer", "registers", "cp.async", "sum over warps"],
)
def test_every_barrier_is_needed(arch, warps_k, double_buffer):
    """Without any one of them the emulator finds a race, or what is read before it is written."""
    workload, target = layer(channels=96, size=3), find_target(arch)
    config = Config(1, 2, warps_k, 1, 2, 1, 2, double_buffer, 4, True, False)
    rng = np.random.default_rng(0)
    weights, table = conv2d_direct.constants(
        config, workload, rng.integers(-9, 9, (64, 96, 3, 3)).astype("int8"), np.zeros(64, "int32")
    )
    out = np.zeros(WORDS[3].shape(workload.out_dims), "int32")
    arrays = BYTES.store(rng.integers(0, 256, workload.x_dims)), weights, table, out
    lowered = lower(conv2d_direct.build(config, workload, target), target.tvm)
    lowered.run(*arrays)
    pieces = lowered.source.split(BARRIER)
    assert len(pieces) > 1
    for barrier in range(1, len(pieces)):
        without = "".join(BARRIER.join(part) for part in (pieces[:barrier], pieces[barrier:]))
        with pytest.raises(CheckFailed):
            replace(lowered, source=without).run(*arrays)


def test_refusals_have_reasons():
    workload = layer()
    good = conv2d_direct.default(workload, T4, 1)
    assert conv2d_direct.check(good, workload, T4) is None
    changes = [
        {"warps_k": 3},
        {"frags_n": 3},
        {"vector": 3},
        {"width": 97},
        {"warps_n": 3, "frags_n": 8},
        {"chunk": 3},
        {"chunk": 4, "double_buffer": True},
        {"warps_m": 64},
        {"frags_m": 64, "width": 1},
    ]
    for change in changes:
        assert conv2d_direct.check(replace(good, **change), workload, T4), change
    for other in (replace(workload, groups=2), replace(workload, weight_bits=4), replace(workload, x=STEM)):
        assert conv2d_direct.check(good, other, T4)
    assert conv2d_direct.formats(replace(workload, groups=2), T4) is None
    assert conv2d_direct.formats(workload, find_target("avx2")) is None


def test_shift_below_the_promised_least_is_refused():
    workload = layer(epilogue=Epilogue(BYTES, 0, 0, 255, 40))
    config = conv2d_direct.default(workload, T4, 1)
    numbers = np.full(64, 2**30, "int32")
    with pytest.raises(ValueError, match="shifts 39..39"):
        conv2d_direct.constants(config, workload, np.zeros((64, 64, 3, 3), "int8"), numbers, numbers, np.full(64, 39))


@pytest.mark.parametrize("x", [NIBBLES, BYTES], ids=["4 bits", "8 bits"])
def test_weights_are_stored_packed_and_padded_with_zeros(x):
    workload = layer(x, channels=40, out_channels=50)
    config = conv2d_direct.default(workload, T4, 1)
    weight = np.full((50, 40, 3, 3), -1, "int8")
    packed, table = conv2d_direct.constants(config, workload, weight, np.ones(50, "int32"))
    assert packed.nbytes == 64 * 64 * 9 * workload.weight_bits // 8
    assert np.unpackbits(packed.view("uint8")).sum() == weight.size * workload.weight_bits
    assert table.shape == (1, 64)
    assert table.sum() == 50
