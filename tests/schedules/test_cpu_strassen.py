"""Strassen's convolution against int64, over shapes, formats, epilogues and extreme values."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from cases import BLOCKED, SUMS, VALUES, WIDE, code_limits, epilogues, fill, four_bit_conv, layer_constants
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import VNNI, conv2d, expand, finish, run, with_garbage

from hawqtvm.qnn.formats import Format
from schedules.cpu import strassen
from schedules.cpu.strassen_weights import operands
from schedules.target import find_target
from schedules.workload import Conv2d, Epilogue, Rescaled

BYTES, PACKED = Format("uint4", BLOCKED), Format("uint4", BLOCKED, packed=True)


layer = partial(four_bit_conv, 1, channels=32, size=(6, 6), out_channels=64, batch=1)


@st.composite
def workloads(draw) -> Conv2d:
    return layer(
        channels=draw(st.integers(1, 70)),
        size=draw(st.tuples(st.integers(1, 12), st.integers(1, 12))),
        out_channels=32 * draw(st.integers(1, 4)) - draw(st.integers(0, 15)),
        x=draw(st.sampled_from([BYTES, PACKED])),
        epilogue=draw(epilogues().filter(lambda epilogue: epilogue is not None)),
        batch=draw(st.integers(1, 9)),
        strides=draw(st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 1)])),
    )


def outcome(config, workload: Conv2d, x, weight, bias, b, c, residual=None):
    """Codes of the kernel and of the reference."""
    epilogue = workload.epilogue
    inputs = [with_garbage(workload.x.store(x), workload.x, workload.in_channels)]
    stored = strassen.constants(config, workload, weight, bias, b, c)
    inputs += expand(strassen.expand(config, workload), stored)
    inputs += [epilogue.residual.format.store(residual)] if residual is not None else []
    out = epilogue.out
    stored = run(strassen.build(config, workload, VNNI), inputs, out.shape(workload.out_dims), out.dtype)
    wanted = finish(conv2d(x, weight, bias, workload), epilogue, b, c, residual)
    return out.load(stored, workload.out_channels), wanted


def values(workload: Conv2d, kind: str, rng) -> tuple[np.ndarray, np.ndarray]:
    """Input codes and weights."""
    x = fill(rng, kind, 0, 15, workload.x_dims)
    shape = (workload.out_channels, workload.in_channels, 1, 1)
    return x, fill(rng, kind, -8, 7, shape, other=True).astype("int8")


@pytest.mark.usefixtures("needs_vnni")
@settings(max_examples=20, deadline=None)
@given(st.data(), workloads(), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_equals_int64(data, workload, kind, seed):
    rng = np.random.default_rng(seed)
    threads = data.draw(st.sampled_from([1, 2, 3]))
    config = data.draw(st.sampled_from(strassen.space(workload, VNNI, threads)))
    assert strassen.check(config, workload, VNNI) is None
    x, weight = values(workload, kind, rng)
    bias, b, c = layer_constants(data.draw, rng, workload.epilogue, weight, 15, kind)
    residual = None
    if workload.epilogue.residual:
        residual = fill(rng, kind, *code_limits(workload.epilogue.residual.format), workload.out_dims)
    got, wanted = outcome(config, workload, x, weight, bias, b, c, residual)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.usefixtures("needs_vnni")
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("x", [BYTES, PACKED], ids=["bytes", "packed"])
@pytest.mark.parametrize("kind", ["most and least", "most and most", "ends"])
def test_every_bit_of_the_accumulators(kind, x, batch):
    workload = layer(channels=72, size=(3, 5), out_channels=32, x=x, batch=batch)
    rng = np.random.default_rng(batch)
    x, weight = values(workload, kind, rng)
    bias = rng.integers(-1000, 1000, 32).astype("int32")
    numbers = np.full(32, 2**30, "int32"), np.full(32, 30, "int32")
    got, wanted = outcome(strassen.default(workload, VNNI, 1), workload, x, weight, bias, *numbers)
    np.testing.assert_array_equal(got, wanted)
    assert np.abs(wanted).max() < WIDE


@pytest.mark.usefixtures("needs_vnni")
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_configs_of_a_space(strides):
    residual = Rescaled(Format("uint8", BLOCKED), 3, 2**30 + 12345, 37)
    workload = layer(
        size=(9, 13), out_channels=128, epilogue=Epilogue(PACKED, 0, 0, 15, 38, residual), batch=2, strides=strides
    )
    rng = np.random.default_rng(0)
    x, weight = values(workload, "random", rng)
    b, c = rng.integers(2**30, 2**31, 128).astype("int32"), np.full(128, 39, "int32")
    codes = rng.integers(0, 256, workload.out_dims)
    space = strassen.space(workload, VNNI, 2)
    for config in space[:: len(space) // 3]:
        got, wanted = outcome(config, workload, x, weight, np.zeros(128, "int32"), b, c, codes)
        np.testing.assert_array_equal(got, wanted, err_msg=str(config))


def test_sums_of_weights_fit_a_byte():
    corners = np.array(np.meshgrid(*[[-8, 7]] * 4)).reshape(4, -1)
    sums = np.array(operands(*corners))
    assert -128 <= sums.min() < -8
    assert 7 < sums.max() <= 127


def test_refusals_have_reasons():
    workload = layer()
    good = strassen.default(workload, VNNI, 1)
    assert strassen.check(good, workload, VNNI) is None
    for change in ({"tile": 19}, {"tile": 15, "oc_tile": 2}, {"oc_tile": 3}, {"tiles": 99}, {"oc_groups": 3}):
        assert strassen.check(replace(good, **change), workload, VNNI)
    assert strassen.check(good, layer(x=Format("uint4")), VNNI)
    residual = Rescaled(Format("uint8"), 0, 2**30, 34)
    assert strassen.check(good, layer(epilogue=replace(SUMS, residual=residual)), VNNI)


@pytest.mark.parametrize(
    "change",
    [
        {"groups": 2},
        {"kernel": (3, 3)},
        {"padding": (0, 1, 0, 0)},
        {"x": Format("uint8", BLOCKED)},
        {"weight_bits": 8},
        {"out_channels": 48},
        {"epilogue": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_layers_are_not_taken(change):
    workload = replace(layer(), **change)
    assert strassen.formats(workload, VNNI) is None
    assert strassen.check(strassen.default(layer(), VNNI, 1), workload, VNNI)
    assert strassen.formats(layer(), find_target("avx2")) is None


def test_weights_are_stored_packed():
    workload = layer()
    weight = np.random.default_rng(0).integers(-8, 8, (64, 32, 1, 1)).astype("int8")
    numbers = np.full(64, 2**30, "int32"), np.full(64, 30, "int32")
    stored = strassen.constants(strassen.default(workload, VNNI, 1), workload, weight, np.zeros(64, "int32"), *numbers)
    assert stored[0].nbytes == weight.size // 2
