"""The integer, the fake-quantized and the float run: against plain arithmetic, each other, and the torch module."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hawqtvm.errors import CheckFailed
from hawqtvm.qnn.graph import Step
from hawqtvm.qnn.model import RESIDUALS, Quantization
from hawqtvm.qnn.reference import (
    fake_quantize,
    float_logits,
    logits,
    quantize_input,
    run_fake,
    run_float,
    run_integer,
)
from tests.nets import NETS, noise, quantized_net, seeded
from tests.qnn import plain
from tests.qnn.small import ACTIVATIONS, DIMS, SEEDS, convolutions, pointwise, pools, random_codes, small_model, uniform

BITS = st.sampled_from((4, 8))
STREAMS = st.sampled_from(RESIDUALS)
FLAGS = st.sampled_from(ACTIVATIONS)
few = settings(max_examples=40, deadline=None)


def assert_exact(model, bits: int, residual: str, seed: int) -> None:
    """Every tensor of the integer run equals plain arithmetic's."""
    arithmetic = uniform(model, bits, residual)
    codes = random_codes(model.graph.input_dims, seed)
    expected = plain.run(arithmetic, codes)
    names = []
    for name, got in run_integer(arithmetic, codes):
        names.append(name)
        assert got.dtype == np.int64
        assert got.shape == (len(codes), *model.graph.dims(name))
        np.testing.assert_array_equal(got, expected[name], err_msg=name)
    assert names == [s.name for s in model.graph.steps]


@few
@given(st.data(), DIMS, FLAGS, BITS, SEEDS)
def test_convolutions_are_exact(data, dims, flags, bits, seed):
    first = data.draw(convolutions("first", "input", dims, **flags))
    second = data.draw(convolutions("second", "first", first.dims, **data.draw(FLAGS)))
    assert_exact(small_model(dims, [first, second], seed), bits, "int16", seed)


@few
@given(st.integers(1, 9), st.integers(1, 5), FLAGS, FLAGS, BITS, SEEDS)
def test_fully_connected_layers_are_exact(inputs, hidden, flags, last_flags, bits, seed):
    first = Step("first", "dense", ("input",), (hidden, 1, 1), **flags)
    second = Step("second", "dense", ("first",), (3, 1, 1), **last_flags)
    assert_exact(small_model((inputs, 1, 1), [first, second], seed), bits, "int16", seed)


@few
@given(DIMS, st.integers(1, 4), FLAGS, FLAGS, BITS, STREAMS, SEEDS)
def test_residual_additions_are_exact(dims, channels, first_flags, flags, bits, residual, seed):
    steps = [
        pointwise("stem", "input", dims, channels, **first_flags),
        pointwise("body", "stem", (channels, *dims[1:]), channels),
        Step("add", "add", ("body", "stem"), (channels, *dims[1:]), **flags),
        pointwise("right", "add", (channels, *dims[1:]), channels),
        Step("last", "add", ("add", "right"), (channels, *dims[1:])),
    ]
    model = small_model(dims, steps, seed)
    kinds = {name: t.kind for name, t in model.graph.tensors.items()}
    assert (kinds["body"], kinds["stem"], kinds["add"]) == ("accumulator", "wide", "wide")
    assert_exact(model, bits, residual, seed)


@few
@given(st.data(), DIMS, FLAGS, BITS, STREAMS, SEEDS)
def test_pools_are_exact(data, dims, flags, bits, residual, seed):
    op = data.draw(st.sampled_from(("max_pool2d", "avg_pool2d")))
    stem = data.draw(convolutions("stem", "input", dims, **flags))
    pool = data.draw(pools("pool", op, "stem", stem.dims, **(data.draw(FLAGS) if op == "avg_pool2d" else {})))
    last = pointwise("last", "pool", pool.dims, 3)
    assert_exact(small_model(dims, [stem, pool, last], seed), bits, residual, seed)


@few
@given(st.data(), DIMS, BITS, SEEDS)
def test_dilated_max_pools_are_exact(data, dims, bits, seed):
    dims = (dims[0], dims[1] + 3, dims[2] + 3)
    stem = pointwise("stem", "input", dims, 2)
    pool = Step("pool", "max_pool2d", ("stem",), (2, dims[1] - 2, dims[2] - 3), kernel=(3, 2), dilation=(1, 3))
    assert_exact(small_model(dims, [stem, pool, pointwise("last", "pool", pool.dims, 2)], seed), bits, "int16", seed)


@few
@given(DIMS, FLAGS, FLAGS, BITS, STREAMS, SEEDS)
def test_concats_and_requantizations_are_exact(dims, flags, relu, bits, residual, seed):
    place = dims[1:]
    steps = [
        pointwise("a", "input", dims, 2, **flags),
        pointwise("b", "input", dims, 3),
        Step("pool", "max_pool2d", ("b",), (3, *place)),
        # a is read twice, the pool cannot rescale, the input is nobody's to rescale
        Step("cat", "concat", ("a", "b", "pool", "input"), (8 + dims[0], *place)),
        Step("again", "requantize", ("cat",), (8 + dims[0], *place), **relu),
        pointwise("c", "again", (8 + dims[0], *place), 2),
        pointwise("d", "a", (2, *place), 2),
        Step("last", "concat", ("c", "d"), (4, *place)),
    ]
    assert_exact(small_model(dims, steps, seed), bits, residual, seed)


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", NETS)
def test_whole_networks_are_exact(name, bits, residual):
    assert_exact(quantized_net(name), bits, residual, seed=1)


@pytest.mark.parametrize("name", NETS)
def test_the_float_run_is_the_module(name):
    build, dims = NETS[name]
    images = noise(3, dims, seed=7)
    with torch.no_grad():
        expected = seeded(build())(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(float_logits(quantized_net(name), images), expected, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("bits", "drift"), [(8, 0.03), (4, 0.2)])
def test_fake_quantization_is_close_to_the_integers(name, bits, drift):
    model = quantized_net(name)
    arithmetic = uniform(model, bits)
    for (tensor, codes), (same, fake) in zip(
        run_integer(arithmetic, model.samples), run_fake(arithmetic, model.samples), strict=True
    ):
        assert tensor == same
        q = arithmetic.tensors[tensor]
        if q is not None:
            real = (codes - q.zero_point) * q.scale
            assert np.linalg.norm(fake - real) <= drift * np.linalg.norm(real), tensor


@pytest.mark.parametrize("name", NETS)
def test_eight_bits_are_close_to_the_floats(name):
    model, images = quantized_net(name), noise(4, NETS[name][1], seed=0)
    arithmetic = uniform(model, 8)
    q = arithmetic.tensors[model.graph.output.name]
    got = (logits(arithmetic, quantize_input(arithmetic.tensors["input"], images)) - q.zero_point) * q.scale
    expected = float_logits(model, images)
    assert np.linalg.norm(got - expected) <= 0.03 * np.linalg.norm(expected)


def test_a_run_keeps_no_tensor_longer_than_it_is_read():
    model = quantized_net("residual")
    weights = {n: (layer.weight, layer.bias) for n, layer in model.layers.items()}
    names = [n for n, _ in run_float(model.graph, weights, noise(1, (3, 10, 10)))]
    assert names == ["input", *(s.name for s in model.graph.steps)]


@pytest.mark.parametrize("sign", [1, -1])
def test_an_accumulator_that_overflows_is_refused(sign):
    model = small_model((1, 1, 1), [pointwise("only", "input", (1, 1, 1), 1)], seed=0)
    scale = model.ranges["input"]["uint8"][0]
    model.ranges["input"]["uint8"] = (scale, 0)
    layer, start = model.layers["only"], sign * (2**31 - 2**14)
    layer.codes[8][:] = sign * 127
    layer.bias = start * layer.scales[8] * scale
    arithmetic = uniform(model, 8)
    assert logits(arithmetic, np.zeros((1, 1, 1, 1), "uint8")).item() == start
    with pytest.raises(CheckFailed, match="only.*overflow"):
        logits(arithmetic, np.full((1, 1, 1, 1), 255, "uint8"))


def test_the_sum_is_exact_where_float32_would_round():
    """4000 products of 255 and 127 and one unit more: past 2**24."""
    step = Step("only", "dense", ("input",), (1, 1, 1))
    model = small_model((4001, 1, 1), [step], seed=0)
    model.ranges["input"]["uint8"] = (0.01, 0)
    layer = model.layers["only"]
    layer.codes[8][:], layer.codes[8][0, 0], layer.bias[:] = 127, 1, 0
    codes = np.full((1, 4001, 1, 1), 255, "uint8")
    codes[0, 0] = 1
    assert logits(uniform(model, 8), codes).item() == 4000 * 255 * 127 + 1


def test_the_input_rounds_to_even_and_clips():
    q = Quantization("uint8", 0.5, 10)
    images = np.float32([-100, -5, 0, 0.25, 0.75, 1, 200])
    assert quantize_input(q, images).tolist() == [0, 0, 10, 10, 12, 12, 255]


def test_fake_quantization_rounds_half_up():
    q = Quantization("uint8", 1.0, 2)
    values = torch.tensor([-9.0, -1.5, -0.5, 0.5, 1.5, 9.0])
    assert fake_quantize(values, q, 0, 8).tolist() == [-2, -1, 0, 1, 2, 6]


def test_relu6_ends_at_the_code_of_six():
    step = pointwise("only", "input", (1, 2, 2), 1, relu=True, ceiling=6.0)
    model = small_model((1, 2, 2), [step, pointwise("last", "only", (1, 2, 2), 1)], seed=0)
    model.ranges["only"]["uint8"] = (0.05, 3)
    arithmetic = uniform(model, 8)
    p = arithmetic.parameters(model.graph.step("only"))
    assert (p.lo, p.hi) == (3, 123)
    assert arithmetic.clip(replace(step, ceiling=None), arithmetic.tensors["only"]) == (3, 255)
