"""Stems that pool their own output: direct and portable against int64."""

from dataclasses import replace

import numpy as np
import pytest
import reference
from cases import BLOCKED, OUTPUTS, epilogues, fill, layer_constants, requantized
from hypothesis import given, settings
from hypothesis import strategies as st
from levels import run_outputs
from reference import VNNI, conv2d, finish, max_pool2d, requantize

from hawqtvm.qnn.formats import Format
from schedules.cpu import conv2d_direct, portable, strassen, winograd
from schedules.cuda import conv2d_direct as cuda_conv2d_direct
from schedules.dispatch import choose, with_layouts
from schedules.target import find_target
from schedules.workload import Conv2d, Epilogue, MaxPool2d, Pool

UNOPTIMIZED = {"kind": "llvm", "mcpu": "x86-64", "opt-level": 0}
VALUES = ("random", "most and least", "most and most", "alternating", "ends")
POOL = Pool((3, 3), (2, 2), (1, 1, 1, 1))


@st.composite
def pools(draw) -> Pool:
    """A kernel of three by three with stride two most often; no window is padding only."""
    if draw(st.booleans()):
        return POOL
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides = tuple(draw(st.integers(1, extent)) for extent in kernel)
    return Pool(kernel, strides, tuple(draw(st.integers(0, extent - 1)) for extent in kernel * 2))


@st.composite
def stems(draw) -> Conv2d:
    kernel, pad = draw(st.sampled_from([(1, 0), (3, 1), (5, 2), (7, 3)]))
    epilogue = replace(draw(epilogues(outputs=OUTPUTS).filter(bool)), residual=None)
    codes = draw(st.none() | requantized(epilogue.out, OUTPUTS))
    bits = draw(st.sampled_from([4, 8]))
    return Conv2d(
        batch=draw(st.integers(1, 3)),
        in_channels=draw(st.integers(1, 4)),
        height=draw(st.integers(7, 18)),
        width=draw(st.integers(7, 18)),
        out_channels=draw(st.integers(1, 40)),
        kernel=(kernel, kernel),
        strides=draw(st.sampled_from([(1, 1), (2, 2)])),
        padding=(pad,) * 4,
        dilation=(1, 1),
        groups=1,
        x=Format("uint8"),
        x_zero_point=draw(st.sampled_from([0, 7])),
        weight_bits=bits,
        epilogue=replace(epilogue, codes=codes),
        pool=draw(pools()),
    )


def pooled(codes: np.ndarray, workload: Conv2d) -> np.ndarray:
    pool = workload.pool
    return max_pool2d(
        codes, MaxPool2d(codes.shape, workload.epilogue.out, pool.kernel, pool.strides, pool.padding, (1, 1))
    )


def assert_exact(data, schedule, level, workload: Conv2d, run=run_outputs) -> None:
    config = data.draw(st.sampled_from(schedule.space(workload, level, data.draw(st.integers(1, 2)))))
    assert schedule.check(config, workload, level) is None
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    epilogue, kind, half = workload.epilogue, data.draw(st.sampled_from(VALUES)), 1 << (workload.weight_bits - 1)
    x = fill(rng, kind, 0, 255, workload.x_dims)
    shape = (workload.out_channels, workload.in_channels, *workload.kernel)
    weight = fill(rng, kind, -half, half - 1, shape, other=True).astype("int8")
    bias, b, c = layer_constants(data.draw, rng, epilogue, weight, 255, kind)
    stored = schedule.constants(config, workload, weight, bias, b, c)
    if hasattr(schedule, "expand"):
        stored = reference.expand(schedule.expand(config, workload), stored, level.tvm)
    outputs = [(format.shape(workload.out_dims), format.dtype) for format in epilogue.outputs]
    found = run(schedule.build(config, workload, level), [workload.x.store(x), *stored], outputs, target=level)
    wanted = [pooled(finish(conv2d(x, weight, bias, workload), epilogue, b, c), workload)]
    assert wanted[0].shape == workload.out_dims
    if epilogue.codes:
        wanted.append(requantize(wanted[0], epilogue.codes))
    for format, got, codes in zip(epilogue.outputs, found, wanted, strict=True):
        np.testing.assert_array_equal(format.load(got, workload.out_channels), codes, err_msg=str(format))


@settings(max_examples=20, deadline=None)
@given(st.data(), stems())
def test_direct(level, data, workload):
    assert_exact(data, conv2d_direct, level, workload)


def run_unoptimized(func, inputs: list, outputs: list, target) -> list:
    """As :func:`run_outputs`, compiled in little time for any processor."""
    return reference.run_outputs(func, inputs, outputs, UNOPTIMIZED)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data(), stems(), st.sampled_from(["NCHW", BLOCKED]))
def test_portable(data, workload, layout):
    assert_exact(data, portable, VNNI, with_layouts(workload, "NCHW", layout), run_unoptimized)


def stem(**fields) -> Conv2d:
    epilogue = Epilogue(Format("uint8", BLOCKED), 0, 0, 255, 36)
    whole = {"x": Format("uint8"), "x_zero_point": 0, "weight_bits": 8, "epilogue": epilogue, "pool": POOL} | fields
    channels = whole.pop("in_channels", 3)
    return Conv2d(1, channels, 16, 16, 32, (3, 3), (1, 1), (1,) * 4, (1, 1), 1, **whole)


def test_who_takes_a_pool():
    assert choose(stem(), VNNI, 1).schedule is conv2d_direct
    assert choose(stem(in_channels=32), VNNI, 1).schedule is portable
    assert choose(stem(pool=Pool((2, 2), (3, 2), (0,) * 4)), VNNI, 1).schedule is portable
    few = stem(x=Format("uint4"), weight_bits=4, headroom=2)
    assert choose(replace(few, pool=None), VNNI, 1).schedule in (winograd, conv2d_direct)
    assert winograd.formats(few, VNNI) is None and strassen.formats(few, VNNI) is None
    assert cuda_conv2d_direct.formats(stem(in_channels=32), find_target("sm_75")) is None


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_every_config_takes_one_row_of_sums(threads):
    space = conv2d_direct.space(stem(), VNNI, threads)
    assert space and all(config.row_tile == 1 for config in space)
    assert any(config.rows < 8 for config in space)
    config = replace(space[0], row_tile=2, col_tile=1, rows=2)
    assert conv2d_direct.check(config, stem(), VNNI) == "a pool takes one row of sums at a time"
