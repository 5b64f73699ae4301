"""What a plan makes of a quantized model: bits, each tensor's quantization, and each step's integers."""

import math

import numpy as np
import pytest

from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.qnn.dyadic import rescale
from hawqtvm.qnn.graph import Step
from hawqtvm.qnn.model import LEAST_FACTOR, RESIDUALS, Arithmetic, Quantization
from hawqtvm.qnn.reference import logits
from tests.nets import NETS, quantized_net
from tests.qnn.small import pointwise, random_codes, small_model, uniform

DIMS = (2, 4, 4)


@pytest.fixture(scope="module")
def residual():
    return quantized_net("residual")


# -- bits --


def test_uniform_bits_leave_the_first_and_last_layer_at_8(residual):
    bits = residual.bits(4)
    assert list(bits) == [s.name for s in residual.graph.layers]
    assert {n for n, b in bits.items() if b == 8} == {"stem.0", "fc"}
    assert set(residual.bits(8).values()) == {8}


def test_layers_that_a_plan_does_not_name_take_8(residual):
    assert residual.bits({}) == residual.bits(8)
    bits = residual.bits({"same.conv2": 4})
    assert [n for n, b in bits.items() if b == 4] == ["same.conv2"]


def test_numbers_of_numpy_are_numbers(residual):
    assert residual.bits({"same.conv2": np.int64(4)})["same.conv2"] == 4


@pytest.mark.parametrize("value", [5, 0, -4, 16, True, "4", None, 4.5, math.nan, [4]])
def test_other_bits_are_refused_by_layer(residual, value):
    with pytest.raises(BadInput, match="same.conv1.*4 or 8"):
        residual.bits({"same.conv1": value})


@pytest.mark.parametrize("value", [5, True, False, "4", None, 2])
def test_other_uniform_bits_are_refused(residual, value):
    with pytest.raises(BadInput, match="4 or 8"):
        residual.bits(value)
    # also where no layer would take them
    with pytest.raises(BadInput, match="4 or 8"):
        small_model(DIMS, [pointwise("only", "input", DIMS, 2)], 0).bits(value)


def test_an_unknown_layer_is_named_with_the_known_ones(residual):
    with pytest.raises(BadInput, match="'layer9'.*same.conv1"):
        residual.bits({"same.conv1": 4, "layer9": 4})


@pytest.mark.parametrize("name", ["stem.0", "fc"])
def test_a_fixed_layer_stays_at_8(residual, name):
    assert residual.bits({name: 8})[name] == 8
    with pytest.raises(BadInput, match=f"{name}.*8 bits"):
        residual.bits({name: 4})


def test_tied_layers_that_differ_are_refused(residual):
    tied = {"down.conv1": 4, "down.downsample.0": 4}
    assert residual.bits(tied)["down.conv1"] == 4
    for left_out in tied:
        with pytest.raises(BadInput, match="down.*=[48].*down.*=[48].*same tensor"):
            residual.bits({n: b for n, b in tied.items() if n != left_out})


# -- tensors --


def kinds(arithmetic: Arithmetic) -> dict[str, str]:
    return {name: q.code if q else "sum" for name, q in arithmetic.tensors.items()}


@pytest.mark.parametrize("stream", RESIDUALS)
def test_codes_follow_kinds_plan_and_stream(residual, stream):
    bits = residual.bits({"same.conv2": 4, "down.conv1": 4, "down.downsample.0": 4})
    codes = kinds(Arithmetic(residual, bits, stream))
    assert codes["input"] == "uint8"
    assert codes["stem.0"] == stream
    assert codes["stem.0.codes"] == "uint8"
    assert codes["same.conv1"] == "uint4"
    assert codes["same.conv2"] == "sum"
    assert codes["same.add"] == "uint4"  # the transition block quantizes its input once
    assert codes["down.downsample.0"] == stream
    assert codes["down.add"] == stream
    assert codes["fc"] == "int32"


def test_scales_are_the_calibrated_ones(residual):
    arithmetic = Arithmetic(residual, residual.bits(4))
    for name, code in (("input", "uint8"), ("same.conv1", "uint4"), ("down.add", "int16")):
        assert arithmetic.tensors[name] == Quantization(code, *residual.ranges[name][code])
    assert arithmetic.tensors["stem.0.codes"] == Quantization("uint4", *residual.ranges["stem.0"]["uint4"])


def test_an_unknown_stream_is_refused(residual):
    with pytest.raises(BadInput, match="'int8'.*int16, int32, uint8"):
        Arithmetic(residual, residual.bits(8), "int8")


@pytest.mark.parametrize("name", NETS)
def test_tensors_of_a_group_have_one_quantization(name):
    model = quantized_net(name)
    for stream in RESIDUALS:
        arithmetic = Arithmetic(model, model.bits(4), stream)
        groups = {}
        for tensor, entry in model.graph.tensors.items():
            groups.setdefault(entry.group, set()).add(arithmetic.tensors[tensor])
        assert all(len(quantizations) == 1 for quantizations in groups.values())


def test_logits_of_a_layer_are_its_sums_at_the_coarsest_scale(residual):
    arithmetic = Arithmetic(residual, residual.bits(8))
    step = residual.graph.output
    scales = residual.layers["fc"].scales[8] * arithmetic.tensors[step.inputs[0]].scale
    assert arithmetic.tensors["fc"] == Quantization("int32", scales.max(), 0)
    p = arithmetic.parameters(step)
    assert (p.lo, p.hi) == (-(2**31), 2**31 - 1)
    np.testing.assert_array_equal(p.ratios[0], scales / scales.max())


@pytest.mark.parametrize("op", ["max_pool2d", "concat"])
def test_logits_that_a_pool_or_a_concat_makes_share_one_scale(op):
    steps = [pointwise("a", "input", DIMS, 3), pointwise("b", "input", DIMS, 3)]
    if op == "concat":
        steps.append(Step("out", op, ("a", "b"), (6, 4, 4)))
    else:
        steps[1:] = [Step("out", op, ("a",), (3, 2, 2), kernel=(2, 2), strides=(2, 2))]
    model = small_model(DIMS, steps, 0)
    arithmetic = uniform(model, 8)
    out = Quantization("int32", *model.ranges[model.graph.tensors["out"].ranges]["int32"])
    assert arithmetic.tensors["out"] == arithmetic.tensors["a"] == out
    assert arithmetic.parameters(model.graph.step("a")).hi == 2**21 - 1
    assert model.graph.fixed() == list(model.layers)


# -- steps --


def test_the_zero_point_is_folded_into_the_bias():
    model = small_model(DIMS, [pointwise("only", "input", DIMS, 3)], 0)
    model.ranges["input"]["uint8"] = (0.25, 7)
    arithmetic, layer = uniform(model, 8), model.layers["only"]
    p = arithmetic.parameters(model.graph.output)
    taps = layer.codes[8].astype(int).reshape(3, -1).sum(1)
    np.testing.assert_array_equal(p.bias, np.rint(layer.bias / (layer.scales[8] * 0.25)) - 7 * taps)
    assert p.bias.dtype == np.int32
    assert p.in_zero_points == (7,)


def test_the_average_is_in_the_factor():
    pool = Step("out", "avg_pool2d", ("a",), (3, 2, 2), kernel=(2, 2), strides=(2, 2))
    arithmetic = uniform(small_model(DIMS, [pointwise("a", "input", DIMS, 3), pool], 0), 8)
    p = arithmetic.parameters(pool)
    assert p.ratios[0] == arithmetic.tensors["a"].scale / (4 * arithmetic.tensors["out"].scale)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({}, (0, 255)), ({"relu": True}, (10, 255)), ({"relu": True, "ceiling": 6.0}, (10, 70))],
)
def test_relu_and_relu6_clip_at_their_codes(flags, expected):
    steps = [pointwise("a", "input", DIMS, 3, **flags), pointwise("b", "a", (3, 4, 4), 2)]
    model = small_model(DIMS, steps, 0)
    model.ranges["a"]["uint8"] = (0.1, 10)
    p = uniform(model, 8).parameters(model.graph.step("a"))
    assert (p.lo, p.hi) == expected


def test_a_ceiling_past_the_range_changes_nothing():
    steps = [pointwise("a", "input", DIMS, 3, relu=True, ceiling=6.0), pointwise("b", "a", (3, 4, 4), 2)]
    model = small_model(DIMS, steps, 0)
    model.ranges["a"]["uint8"] = (0.001, 0)
    assert uniform(model, 8).parameters(model.graph.step("a")).hi == 255


@pytest.mark.parametrize("bias", [1e3, -1e3, 1e30])
def test_a_bias_that_overflows_names_layer_and_channel(bias):
    model = small_model(DIMS, [pointwise("only", "input", DIMS, 3)], 0)
    model.layers["only"].bias[1] = bias
    model.layers["only"].scales[8][1] = 1e-9
    with pytest.raises(CheckFailed, match="only.*channel 1"):
        uniform(model, 8).parameters(model.graph.output)


def test_a_factor_too_small_for_a_dyadic_number_gives_zero():
    steps = [pointwise("a", "input", DIMS, 2), pointwise("b", "a", (2, 4, 4), 2)]
    model = small_model(DIMS, steps, 0)
    model.layers["a"].scales[8][1] = 1e-25
    model.layers["a"].bias[1] = 0
    arithmetic = uniform(model, 8)
    p = arithmetic.parameters(model.graph.step("a"))
    assert p.ratios[0][1] == LEAST_FACTOR
    b, c = p.dyadic("a")[0]
    assert rescale(np.array([-(2**31), 2**31 - 1]), b[1], c[1]).tolist() == [0, 0]
    assert np.isfinite(logits(arithmetic, random_codes(DIMS, 0))).all()


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, 1e30])
def test_a_scale_without_a_dyadic_number_names_the_layer(scale):
    steps = [pointwise("a", "input", DIMS, 2), pointwise("b", "a", (2, 4, 4), 2)]
    model = small_model(DIMS, steps, 0)
    model.layers["a"].scales[8][1] = scale
    model.layers["a"].bias[:] = 0
    with np.errstate(all="ignore"), pytest.raises((BadInput, CheckFailed), match="a.*(factor|bias)"):
        uniform(model, 8).parameters(model.graph.step("a")).dyadic("a")
