"""A convolution's codes and, beside them, the same codes requantized: every schedule against int64."""

from dataclasses import replace

import numpy as np
import reference
from cases import BLOCKED, INPUTS, OUTPUTS, code_limits, epilogues, fill, requantized
from hypothesis import given, settings
from hypothesis import strategies as st
from levels import run_outputs
from reference import VNNI, conv2d, expand, finish, requantize, with_garbage

from hawqtvm.qnn.dyadic import dyadic, shortened
from hawqtvm.qnn.formats import Format
from schedules.cpu import conv2d_direct, dense, portable, winograd
from schedules.cpu.requantize_codes import bytes_to_bytes
from schedules.dispatch import choose, with_layouts
from schedules.workload import Conv2d, Dense, Epilogue, Requantized, Rescaled

UNOPTIMIZED = {"kind": "llvm", "mcpu": "x86-64", "opt-level": 0}
BYTES, WORDS = Format("uint8", BLOCKED), Format("uint4", BLOCKED, packed=True)


@st.composite
def workloads(draw, kernels=(1, 3), inputs=tuple(INPUTS), bits=(4, 8)) -> Conv2d:
    """A small convolution with codes of every format, and of every other beside them."""
    epilogue = draw(epilogues().filter(bool))
    kernel = draw(st.sampled_from(kernels))
    x = draw(st.sampled_from(inputs))
    strides = draw(st.tuples(*[st.integers(1, 2)] * 2))
    return Conv2d(
        batch=draw(st.integers(1, 2)),
        in_channels=draw(st.integers(5, 40)),
        height=draw(st.integers(3, 9)),
        width=draw(st.integers(3, 9)),
        out_channels=draw(st.integers(1, 70)),
        kernel=(kernel, kernel),
        strides=strides,
        padding=(kernel // 2,) * 4,
        dilation=(1, 1),
        groups=1,
        x=x,
        x_zero_point=draw(st.integers(0, x.limits[1])),
        weight_bits=draw(st.sampled_from(bits)),
        epilogue=replace(epilogue, codes=draw(requantized(epilogue.out, OUTPUTS))),
        headroom=2,
    )


def run_unoptimized(func, inputs: list, outputs: list, target) -> list:
    """As :func:`run_outputs`, compiled in little time for any processor."""
    return reference.run_outputs(func, inputs, outputs, UNOPTIMIZED)


def assert_exact(schedule, level, config, workload: Conv2d, seed: int, run=run_outputs) -> None:
    """Both outputs, on accumulators that a large bias spreads over the wide codes and some beyond them."""
    assert schedule.check(config, workload, level) is None
    rng, epilogue, channels = np.random.default_rng(seed), workload.epilogue, workload.out_channels
    half = 1 << (workload.weight_bits - 1)
    x = rng.integers(0, workload.x.limits[1] + 1, workload.x_dims)
    weight = rng.integers(-half, half, (channels, workload.in_channels, *workload.kernel)).astype("int8")
    extent = min(
        2**28, 300 + code_limits(epilogue.out)[1] << (epilogue.min_shift - 30 if epilogue.min_shift > 30 else 0)
    )
    bias = rng.integers(-extent // 4, extent + 1, channels).astype("int32")
    b = rng.integers(2**30, 2**31, channels).astype("int32")
    c = rng.integers(epilogue.min_shift, epilogue.min_shift + 3, channels).astype("int32")
    inputs = [with_garbage(workload.x.store(x), workload.x, workload.in_channels)]
    stored = schedule.constants(config, workload, weight, bias, b, c)
    inputs += expand(schedule.expand(config, workload), stored, level.tvm) if hasattr(schedule, "expand") else stored
    residual = None
    if epilogue.residual:
        residual = fill(rng, "random", *code_limits(epilogue.residual.format), workload.out_dims)
        inputs.append(epilogue.residual.format.store(residual))
    outputs = [(format.shape(workload.out_dims), format.dtype) for format in epilogue.outputs]
    found = run(schedule.build(config, workload, level), inputs, outputs, target=level)
    wide = finish(conv2d(x, weight, bias, workload), epilogue, b, c, residual)
    for format, got, wanted in zip(epilogue.outputs, found, (wide, requantize(wide, epilogue.codes)), strict=True):
        np.testing.assert_array_equal(format.load(got, channels), wanted, err_msg=str(format))


@settings(max_examples=20, deadline=None)
@given(st.data(), workloads(), st.integers(0, 2**32))
def test_direct(level, data, workload, seed):
    space = conv2d_direct.space(workload, level, 1)
    assert_exact(conv2d_direct, level, data.draw(st.sampled_from(space)), workload, seed)


@settings(max_examples=10, deadline=None)
@given(st.data(), workloads(kernels=(3,), inputs=tuple(INPUTS[1:]), bits=(4,)), st.integers(0, 2**32))
def test_winograd(level, data, workload, seed):
    assert winograd.formats(workload, level)
    space = winograd.space(workload, level, 1)
    assert_exact(winograd, level, data.draw(st.sampled_from(space)), workload, seed)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(workloads(), st.sampled_from(["NCHW", BLOCKED]), st.booleans(), st.integers(0, 2**32))
def test_portable(workload, layout, parallel, seed):
    laid = with_layouts(workload, layout, layout)
    assert_exact(portable, VNNI, portable.Config(parallel), laid, seed, run_unoptimized)


def every_code(codes: Requantized) -> Conv2d:
    """A 1x1 convolution whose output channel n has the code n."""
    epilogue = Epilogue(BYTES, 0, 0, 255, 33, codes=codes)
    return Conv2d(1, 16, 1, 2, 256, (1, 1), (1, 1), (0,) * 4, (1, 1), 1, BYTES, 0, 8, epilogue)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_every_byte(level, data):
    codes = data.draw(requantized(BYTES, [WORDS, Format("uint4", BLOCKED), BYTES]))
    workload = every_code(codes)
    config = conv2d_direct.default(workload, level, 1)
    numbers = [np.zeros((256, 16, 1, 1), "int8"), np.arange(256, dtype="int32") * 8]
    numbers += [np.full(256, 2**30, "int32"), np.full(256, 33, "int32")]
    inputs = [np.zeros(BYTES.shape(workload.x_dims), "uint8")]
    inputs += conv2d_direct.constants(config, workload, *numbers)
    outputs = [(format.shape(workload.out_dims), format.dtype) for format in workload.epilogue.outputs]
    wide, found = run_outputs(conv2d_direct.build(config, workload, level), inputs, outputs, level)
    wide = BYTES.load(wide, 256)
    np.testing.assert_array_equal(wide[0, :, 0, 0], np.arange(256))
    np.testing.assert_array_equal(codes.out.load(found, 256), requantize(wide, codes))


@given(st.floats(0.004, 4), st.integers(0, 255), st.sampled_from([WORDS, BYTES]))
def test_ordinary_scales_go_from_bytes_to_bytes(ratio, zero, out):
    b, c = (int(number) for number in dyadic(shortened(np.float64(ratio)), "codes"))
    assert bytes_to_bytes(Requantized(Rescaled(BYTES, zero, b, c), out, 0, *out.limits))


def test_what_has_no_second_output_refuses_it():
    codes = Requantized(Rescaled(BYTES, 0, 2**30, 34), WORDS, 0, 0, 15)
    layer = Dense(1, 32, 32, BYTES, 8, Epilogue(BYTES, 0, 0, 255, 34))
    config = dense.default(layer, VNNI, 1)
    assert dense.check(config, layer, VNNI) is None
    layer = replace(layer, epilogue=replace(layer.epilogue, codes=codes))
    assert dense.check(config, layer, VNNI) and choose(layer, VNNI, 1).schedule is portable
    plain = every_code(replace(codes, out=Format("uint4")))
    assert conv2d_direct.check(conv2d_direct.default(plain, VNNI, 1), plain, VNNI)
