"""The direct convolution against int64, over shapes, formats, epilogues and extreme values."""

from dataclasses import replace

import numpy as np
import pytest
from cases import INPUTS, VALUES, code_limits, epilogues, fill, layer_constants
from hypothesis import given, settings
from hypothesis import strategies as st
from levels import run
from reference import conv2d, expand, finish, with_garbage

from hawqtvm.qnn.formats import Format
from schedules.cpu import conv2d_direct
from schedules.target import find_target
from schedules.workload import Conv2d, Epilogue, Rescaled

VNNI = find_target("avx512-vnni")
STEM = Format("uint8")
BLOCKS = Format("uint8", "NCHW16c")


def extent(draw, kernel: int, dilation: int, before: int, after: int) -> int:
    """A height or width that leaves at least one output."""
    least = max(1, dilation * (kernel - 1) + 1 - before - after)
    return draw(st.integers(least, least + 17))


@st.composite
def workloads(draw) -> Conv2d:
    stem = draw(st.integers(0, 3)) == 0
    x = STEM if stem else draw(st.sampled_from(INPUTS))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)) | st.just((3, 3)) | st.sampled_from([(1, 1), (7, 7)]))
    dilation = (draw(st.integers(1, 2)), 1 if stem else draw(st.integers(1, 2)))
    padding = draw(st.just((0, 0, 0, 0)) | st.tuples(*[st.integers(0, 3)] * 4))
    return Conv2d(
        batch=draw(st.integers(1, 3)),
        in_channels=draw(st.integers(1, 4) if stem else st.integers(5, 70)),
        height=extent(draw, kernel[0], dilation[0], padding[0], padding[2]),
        width=extent(draw, kernel[1], dilation[1], padding[1], padding[3]),
        out_channels=draw(st.integers(1, 100)),
        kernel=kernel,
        strides=draw(st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 1)])),
        padding=padding,
        dilation=dilation,
        groups=1,
        x=x,
        x_zero_point=draw(st.integers(0, x.limits[1])),
        weight_bits=draw(st.sampled_from([4, 8])),
        epilogue=draw(epilogues()),
    )


def outcome(level, config, workload: Conv2d, x, weight, bias, b, c, residual):
    """Codes of the kernel and of the reference."""
    epilogue = workload.epilogue
    inputs = [with_garbage(workload.x.store(x), workload.x, workload.in_channels)]
    stored = conv2d_direct.constants(config, workload, weight, bias, b, c)
    inputs += expand(conv2d_direct.expand(config, workload), stored, level.tvm)
    inputs += [epilogue.residual.format.store(residual)] if residual is not None else []
    out = epilogue.out if epilogue else Format("int32", "NCHW16c")
    stored = run(conv2d_direct.build(config, workload, level), inputs, out.shape(workload.out_dims), out.dtype, level)
    wanted = finish(conv2d(x, weight, bias, workload), epilogue, b, c, residual)
    return out.load(stored, workload.out_channels), wanted


@settings(max_examples=30, deadline=None)
@given(st.data(), workloads(), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_equals_int64(level, data, workload, kind, seed):
    rng = np.random.default_rng(seed)
    threads = data.draw(st.sampled_from([1, 2, 3]))
    space = conv2d_direct.space(workload, level, threads)
    config = data.draw(st.sampled_from(space + [conv2d_direct.default(workload, level, threads)] * 3))
    assert conv2d_direct.check(config, workload, level) is None
    half = 1 << (workload.weight_bits - 1)
    x = fill(rng, kind, *workload.x.limits, workload.x_dims)
    shape = (workload.out_channels, workload.in_channels, *workload.kernel)
    weight = fill(rng, kind, -half, half - 1, shape, other=True).astype("int8")
    bias, b, c = layer_constants(data.draw, rng, workload.epilogue, weight, workload.x.limits[1], kind)
    residual = None
    if workload.epilogue and workload.epilogue.residual:
        residual = fill(rng, kind, *code_limits(workload.epilogue.residual.format), workload.out_dims)
    got, wanted = outcome(level, config, workload, x, weight, bias, b, c, residual)
    np.testing.assert_array_equal(got, wanted)


def layer(channels=32, size=6, out_channels=32, x=BLOCKS, bits=8, epilogue=None, kernel=1, batch=1) -> Conv2d:
    pad = kernel // 2
    return Conv2d(
        batch=batch,
        in_channels=channels,
        height=size,
        width=size,
        out_channels=out_channels,
        kernel=(kernel, kernel),
        strides=(1, 1),
        padding=(pad, pad, pad, pad),
        dilation=(1, 1),
        groups=1,
        x=x,
        x_zero_point=0,
        weight_bits=bits,
        epilogue=epilogue,
    )


@pytest.mark.parametrize("shift", [32, 33, 40])
def test_rounds_exact_halves_up(level, shift):
    """A bias of odd multiples of half a step, nothing else: every result lies between two codes."""
    epilogue = Epilogue(Format("int16", "NCHW16c"), 0, -(2**15), 2**15 - 1, shift)
    workload = layer(epilogue=epilogue)
    half = 1 << (shift - 31)
    bias = (half * (2 * np.arange(-16, 16) + 1)).astype("int32")
    b, c = np.full(32, 2**30, "int32"), np.full(32, shift, "int32")
    weight = np.zeros((32, 32, 1, 1), "int8")
    got, wanted = outcome(
        level, conv2d_direct.default(workload, level, 1), workload, np.zeros((1, 32, 6, 6)), weight, bias, b, c, None
    )
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(got[0, :, 0, 0], np.arange(-15, 17))


@pytest.mark.parametrize("bits", [4, 8])
def test_every_config_of_a_space(level, bits):
    residual = Rescaled(Format("int16", "NCHW16c"), 0, 2**30 + 12345, 37)
    packed = Format("uint4", "NCHW16c", packed=True)
    x, out = (packed, packed) if bits == 4 else (BLOCKS, BLOCKS)
    workload = layer(32, 7, 64, x, bits, Epilogue(out, 0, 0, out.limits[1], 38, residual), kernel=3, batch=2)
    rng = np.random.default_rng(bits)
    half = 1 << (bits - 1)
    weight = rng.integers(-half, half, (64, 32, 3, 3)).astype("int8")
    x = rng.integers(0, x.limits[1] + 1, workload.x_dims)
    b = rng.integers(2**30, 2**31, 64).astype("int32")
    c = np.full(64, 38 if bits == 4 else 44, "int32")
    codes = rng.integers(-3000, 3000, workload.out_dims)
    space = conv2d_direct.space(workload, level, 2)
    for config in space[:: max(1, len(space) // 12)]:
        got, wanted = outcome(level, config, workload, x, weight, np.zeros(64, "int32"), b, c, codes)
        np.testing.assert_array_equal(got, wanted, err_msg=str(config))


def test_refusals_have_reasons():
    workload = layer(epilogue=None)
    good = conv2d_direct.default(workload, VNNI, 1)
    assert conv2d_direct.check(good, workload, VNNI) is None
    for change in ({"col_tile": 99}, {"oc_tile": 3}, {"images": 2}, {"rows": 99}, {"expanded": True}):
        assert conv2d_direct.check(good.__class__(**{**good.__dict__, **change}), workload, VNNI)
    assert conv2d_direct.check(good, layer(x=STEM), VNNI)
    assert conv2d_direct.formats(Conv2d(**{**workload.__dict__, "groups": 2}), VNNI) is None


def test_shift_below_the_promised_least_is_refused():
    workload = layer(epilogue=Epilogue(BLOCKS, 0, 0, 255, 40))
    config = conv2d_direct.default(workload, VNNI, 1)
    numbers = np.full(32, 2**30, "int32")
    with pytest.raises(ValueError, match="shifts 39..39"):
        conv2d_direct.constants(config, workload, np.zeros((32, 32, 1, 1), "int8"), numbers, numbers, np.full(32, 39))


def test_weights_are_stored_packed_however_the_kernel_reads_them():
    workload = layer(bits=4)
    good = conv2d_direct.default(workload, VNNI, 1)
    weight = np.random.default_rng(0).integers(-8, 8, (32, 32, 1, 1)).astype("int8")
    both = [replace(good, expanded=expanded) for expanded in (False, True)]
    assert set(both) <= set(conv2d_direct.space(workload, VNNI, 1))
    stored = [conv2d_direct.constants(config, workload, weight, np.zeros(32, "int32"))[0] for config in both]
    np.testing.assert_array_equal(*stored)
    assert stored[0].nbytes == weight.size // 2
    assert not any(config.expanded for config in conv2d_direct.space(layer(bits=8), VNNI, 1))
