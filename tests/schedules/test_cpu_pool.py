"""Pooling against int64, on AVX-512 and on the least x86-64 that is supported."""

import numpy as np
import pytest
from cases import OUTPUTS, VALUES, code_limits, fill, multipliers
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import BASELINE, TARGET, VNNI, avg_pool2d, max_pool2d, run

from schedules.cpu import pool
from schedules.workload import AvgPool2d, MaxPool2d


@st.composite
def windows(draw, dilations) -> dict:
    """Kernel, strides, padding, dilation and dims; every window touches the input."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(dilations)
    padding = tuple(draw(st.integers(0, kernel[axis % 2] // 2)) for axis in range(4))
    sizes = []
    for axis in range(2):
        least = max(1, dilation[axis] * (kernel[axis] - 1) + 1 - padding[axis] - padding[axis + 2])
        sizes.append(draw(st.integers(least, least + 12)))
    dims = (draw(st.integers(1, 2)), draw(st.integers(1, 40)), *sizes)
    return {
        "dims": dims,
        "kernel": kernel,
        "strides": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": padding,
        "dilation": dilation,
    }


def outcome(data, workload, out, kind, seed, target):
    x = fill(np.random.default_rng(seed), kind, *code_limits(workload.x), workload.dims)
    config = data.draw(st.sampled_from(pool.space(workload, VNNI, 2)))
    assert pool.check(config, workload, VNNI) is None
    inputs = [workload.x.store(x)]
    got = run(pool.build(config, workload, VNNI), inputs, out.shape(workload.out_dims), out.dtype, target)
    return x, out.load(got, workload.dims[1])


@pytest.mark.parametrize("target", [TARGET, BASELINE], ids=["avx512", "baseline"])
@settings(max_examples=15, deadline=None)
@given(st.data(), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_max_pool(request, target, data, kind, seed):
    if target is TARGET:
        request.getfixturevalue("needs_vnni")
    shape = data.draw(windows(st.tuples(st.integers(1, 2), st.integers(1, 2))))
    workload = MaxPool2d(x=data.draw(st.sampled_from(OUTPUTS)), **shape)
    x, got = outcome(data, workload, workload.x, kind, seed, target)
    np.testing.assert_array_equal(got, max_pool2d(x, workload))


@pytest.mark.parametrize("target", [TARGET, BASELINE], ids=["avx512", "baseline"])
@settings(max_examples=15, deadline=None)
@given(st.data(), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_avg_pool(request, target, data, kind, seed):
    if target is TARGET:
        request.getfixturevalue("needs_vnni")
    shape = data.draw(windows(st.just((1, 1))))
    del shape["dilation"]
    x, out = data.draw(st.sampled_from(OUTPUTS)), data.draw(st.sampled_from(OUTPUTS))
    low, high = code_limits(out)
    workload = AvgPool2d(
        x=x,
        x_zero_point=0 if x.code == "int32" else data.draw(st.sampled_from([0, x.limits[1] // 2])),
        b=data.draw(multipliers()),
        c=data.draw(st.integers(28, 40)),
        out=out,
        zero_point=data.draw(st.sampled_from([0, 3])),
        lo=low,
        hi=high,
        **shape,
    )
    codes, got = outcome(data, workload, out, kind, seed, target)
    np.testing.assert_array_equal(got, avg_pool2d(codes, workload))
