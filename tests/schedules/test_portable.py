"""The fallback against int64: every workload in every format, on any shape."""

from dataclasses import replace

import numpy as np
import pytest
import reference
from cases import VALUES, code_limits, fill, layer_constants, rescaled, windows
from hypothesis import given, settings
from hypothesis import strategies as st

from hawqtvm.qnn.formats import Format
from schedules.cpu import portable
from schedules.target import find_target
from schedules.workload import AvgPool2d, Concat, Conv2d, Dense, Elementwise, Epilogue, MaxPool2d, Reformat
from tests.needs import needs_level

LAYOUTS = ("NCHW", "NCHW16c")
FORMATS = [Format(code, layout) for code in ("uint4", "uint8", "int16", "int32") for layout in LAYOUTS]
FORMATS += [Format("uint4", layout, packed=True) for layout in LAYOUTS]
CODES = [f for f in FORMATS if f.code in ("uint4", "uint8")]
# in a sixth of the time; what LLVM's optimizer does is looked at by test_optimized
UNOPTIMIZED = {"kind": "llvm", "mcpu": "x86-64", "opt-level": 0}
GEOMETRY = {"kernel", "strides", "padding", "dilation"}
EXAMPLES = {"deadline": None, "derandomize": True}


@st.composite
def epilogues(draw) -> Epilogue | None:
    """Any output format, any residual beside it, or none of it at all."""
    if draw(st.integers(0, 7)) == 0:
        return None
    out = draw(st.sampled_from(FORMATS))
    low, high = code_limits(out)
    residual = draw(st.none() | rescaled(FORMATS))
    shift = draw(st.sampled_from([24, 31, 34, 38]))
    zero = draw(st.sampled_from([0, 3]))
    return Epilogue(
        out, zero, low + draw(st.sampled_from([0, 3])), high - draw(st.sampled_from([0, 2])), shift, residual
    )


def stored(codes: np.ndarray, format: Format) -> np.ndarray:
    return reference.with_garbage(format.store(codes), format, codes.shape[1])


def assert_stores(workload, inputs, out: Format, wanted, parallel: bool, target=UNOPTIMIZED) -> None:
    """The kernel writes exactly ``wanted``, and 0 for the channels past the last."""
    config = portable.Config(parallel)
    assert portable.check(config, workload, reference.VNNI) is None
    kernel = portable.build(config, workload, reference.VNNI)
    got = reference.run(kernel, inputs, out.shape(workload.out_dims), out.dtype, target)
    np.testing.assert_array_equal(got, out.store(wanted))


def assert_layer_exact(draw, workload: Conv2d | Dense, kind: str, seed: int, target=UNOPTIMIZED) -> None:
    rng, epilogue = np.random.default_rng(seed), workload.epilogue
    half = 1 << (workload.weight_bits - 1)
    convolution = isinstance(workload, Conv2d)
    taps = (workload.in_channels // workload.groups, *workload.kernel) if convolution else (workload.in_channels,)
    x = fill(rng, kind, *workload.x.limits, workload.x_dims)
    weight = fill(rng, kind, -half, half - 1, (workload.out_channels, *taps), other=True).astype("int8")
    bias, b, c = layer_constants(draw, rng, epilogue, weight, workload.x.limits[1], kind)
    inputs = [stored(x, workload.x), *portable.constants(portable.Config(), workload, weight, bias, b, c)]
    residual = None
    if epilogue and epilogue.residual:
        residual = fill(rng, kind, *code_limits(epilogue.residual.format), workload.out_dims)
        inputs.append(stored(residual, epilogue.residual.format))
    sums = reference.conv2d(x, weight, bias, workload) if convolution else reference.dense(x, weight, bias)
    wanted = reference.finish(sums, epilogue, b, c, residual)
    out = epilogue.out if epilogue else Format("int32")
    assert_stores(workload, inputs, out, wanted, draw(st.booleans()), target)


@settings(max_examples=60, **EXAMPLES)
@given(st.data(), windows(), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_conv2d(data, window, kind, seed):
    x = data.draw(st.sampled_from(CODES))
    groups = data.draw(st.sampled_from([1, 1, 2, 3, 16]))
    multiplier = data.draw(st.sampled_from([1, 2, 5]))
    workload = Conv2d(
        batch=data.draw(st.integers(1, 2)),
        # one channel a group is depthwise
        in_channels=groups * data.draw(st.sampled_from([1, 1, 3, 8, 17] if groups < 16 else [1, 2])),
        out_channels=groups * multiplier,
        groups=groups,
        x=x,
        x_zero_point=data.draw(st.integers(0, x.limits[1])),
        weight_bits=data.draw(st.sampled_from([4, 8])),
        epilogue=data.draw(epilogues()),
        **window,
    )
    assert_layer_exact(data.draw, workload, kind, seed)


@settings(max_examples=25, **EXAMPLES)
@given(st.data(), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_dense(data, kind, seed):
    workload = Dense(
        batch=data.draw(st.integers(1, 3)),
        in_channels=data.draw(st.integers(1, 70)),
        out_channels=data.draw(st.integers(1, 40)),
        x=data.draw(st.sampled_from(CODES)),
        weight_bits=data.draw(st.sampled_from([4, 8])),
        epilogue=data.draw(epilogues()),
    )
    assert_layer_exact(data.draw, workload, kind, seed)


def dims_of(draw) -> tuple[int, int, int, int]:
    return draw(st.tuples(st.integers(1, 2), st.integers(1, 35), st.integers(1, 4), st.integers(1, 4)))


@settings(max_examples=25, **EXAMPLES)
@given(st.data(), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_elementwise(data, kind, seed):
    out = data.draw(st.sampled_from(FORMATS))
    low, high = code_limits(out)
    workload = Elementwise(
        dims=dims_of(data.draw),
        operands=tuple(data.draw(st.lists(rescaled(FORMATS), min_size=1, max_size=2))),
        out=out,
        zero_point=data.draw(st.sampled_from([0, 3])),
        lo=low + data.draw(st.sampled_from([0, 2])),
        hi=high - data.draw(st.sampled_from([0, 2])),
    )
    rng = np.random.default_rng(seed)
    codes = [fill(rng, kind, *code_limits(operand.format), workload.dims) for operand in workload.operands]
    inputs = [stored(q, operand.format) for q, operand in zip(codes, workload.operands, strict=True)]
    assert_stores(workload, inputs, out, reference.elementwise(codes, workload), data.draw(st.booleans()))


def pool_shape(data, window: dict) -> dict:
    batch, channels = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 35)))
    return {"dims": (batch, channels, window["height"], window["width"])} | {
        key: value for key, value in window.items() if key in GEOMETRY
    }


@settings(max_examples=25, **EXAMPLES)
@given(st.data(), windows(pool=True), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_max_pool2d(data, window, kind, seed):
    x = data.draw(st.sampled_from(FORMATS))
    workload = MaxPool2d(x=x, **pool_shape(data, window))
    codes = fill(np.random.default_rng(seed), kind, *code_limits(x), workload.dims)
    wanted = reference.max_pool2d(codes, workload)
    assert_stores(workload, [stored(codes, x)], x, wanted, data.draw(st.booleans()))


@settings(max_examples=25, **EXAMPLES)
@given(st.data(), windows(pool=True), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_avg_pool2d(data, window, kind, seed):
    x, out = data.draw(st.sampled_from(FORMATS)), data.draw(st.sampled_from(FORMATS))
    shape = pool_shape(data, window | {"dilation": (1, 1)})
    del shape["dilation"]
    operand = data.draw(rescaled([x]))
    low, high = code_limits(out)
    workload = AvgPool2d(
        x=x,
        x_zero_point=operand.zero_point,
        b=operand.b,
        c=operand.c,
        out=out,
        zero_point=data.draw(st.sampled_from([0, 3])),
        lo=low,
        hi=high,
        **shape,
    )
    codes = fill(np.random.default_rng(seed), kind, *code_limits(x), workload.dims)
    wanted = reference.avg_pool2d(codes, workload)
    assert_stores(workload, [stored(codes, x)], out, wanted, data.draw(st.booleans()))


@settings(max_examples=20, **EXAMPLES)
@given(st.data(), st.integers(0, 2**32))
def test_concat(data, seed):
    x = data.draw(st.sampled_from(FORMATS))
    out = data.draw(st.sampled_from([f for f in FORMATS if f.code == x.code]))
    n, _, h, w = dims_of(data.draw)
    channels = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    workload = Concat(tuple((n, c, h, w) for c in channels), x, out)
    rng = np.random.default_rng(seed)
    codes = [fill(rng, "random", *x.limits, dims) for dims in workload.operands]
    inputs = [stored(q, x) for q in codes]
    assert_stores(workload, inputs, out, np.concatenate(codes, 1), data.draw(st.booleans()))


@pytest.mark.parametrize("channels", [1, 8, 23, 32])
@pytest.mark.parametrize("code", ["uint4", "uint8", "int16", "int32"])
def test_reformat(code, channels):
    """Between every two formats of a code."""
    alike = [f for f in FORMATS if f.code == code]
    dims = (2, channels, 2, 3)
    codes = np.random.default_rng(channels).integers(*alike[0].limits, dims, endpoint=True)
    for x in alike:
        for out in alike:
            assert_stores(Reformat(dims, x, out), [stored(codes, x)], out, codes, parallel=channels > 8)


@pytest.mark.parametrize("mcpu", ["x86-64", "x86-64-v3"])
@pytest.mark.parametrize("groups", [1, 24])
@pytest.mark.parametrize("bits", [4, 8])
def test_optimized(mcpu, groups, bits):
    """As a library is built, on the extremes."""
    if mcpu == "x86-64-v3":
        needs_level(find_target("avx2"))
    x = Format(f"uint{bits}", "NCHW16c", packed=bits == 4)
    residual = rescaled([Format("int16", "NCHW16c")])
    workload = Conv2d(2, 24, 9, 11, 24, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), groups, x, 3, bits)

    @settings(max_examples=4, **EXAMPLES)
    @given(st.data(), st.sampled_from(VALUES), st.integers(0, 2**32))
    def exact(data, kind, seed):
        epilogue = Epilogue(x, 0, 0, x.limits[1], 34, data.draw(residual))
        target = {"kind": "llvm", "mcpu": mcpu}
        assert_layer_exact(data.draw, replace(workload, epilogue=epilogue), kind, seed, target)

    exact()


def test_configs():
    workload = Reformat((1, 8, 1, 1), Format("uint4"), Format("uint4", packed=True))
    assert portable.space(workload, reference.VNNI, 4) == [portable.Config(True), portable.Config(False)]
    assert portable.default(workload, reference.VNNI, 4).parallel
    assert not portable.default(workload, reference.VNNI, 1).parallel
