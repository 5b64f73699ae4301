"""Ranges, scales and zero points, and the weights' codes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hawqtvm.qnn.quantizers import METHODS, activation_range, affine, weight_codes, weight_scales, wide

BITS = (4, 8)
FLOATS = st.floats(-1e6, 1e6, width=32)
VALUES = st.lists(FLOATS, min_size=1, max_size=40).map(lambda v: np.array(v, "float32"))


def quantized(values: np.ndarray, method: str, bits: int) -> np.ndarray:
    """``values`` after a round through unsigned codes."""
    scale, zero_point = affine(*activation_range(values, method, bits), bits)
    codes = np.clip(np.rint(values.astype("float64") / scale) + zero_point, 0, 2**bits - 1)
    return (codes - zero_point) * scale


def squared_error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype("float64") - b).sum())


@given(VALUES, st.sampled_from(METHODS), st.sampled_from(BITS))
def test_a_range_holds_zero_and_lies_inside_the_values(values, method, bits):
    low, high = activation_range(values, method, bits)
    assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)


@given(VALUES, st.sampled_from(BITS))
def test_minmax_is_the_exact_range(values, bits):
    assert activation_range(values, "minmax", bits) == (min(values.min(), 0), max(values.max(), 0))


@pytest.mark.parametrize("bits", BITS)
def test_percentile_cuts_the_tails(bits):
    values = np.concatenate([np.linspace(-1, 1, 100_001, dtype="float32"), np.float32([-50, 80])])
    low, high = activation_range(values, "percentile", bits)
    assert -1.001 < low < -0.999
    assert 0.999 < high < 1.001


@pytest.mark.parametrize("bits", BITS)
def test_mse_beats_minmax_where_there_are_outliers(bits):
    values = np.random.default_rng(0).standard_normal(50_000).astype("float32")
    values[:3] = 12
    assert squared_error(quantized(values, "mse", bits), values) < squared_error(
        quantized(values, "minmax", bits), values
    )


@given(VALUES, st.sampled_from(BITS))
def test_mse_is_never_worse_than_minmax(values, bits):
    least = squared_error(quantized(values, "minmax", bits), values)
    rounding = 1e-7 * squared_error(values, 0 * values)  # the search sums up in another precision
    assert squared_error(quantized(values, "mse", bits), values) <= least + rounding


@given(st.floats(-1e6, 0), st.floats(0, 1e6), st.sampled_from(BITS))
def test_zero_is_a_code(low, high, bits):
    scale, zero_point = affine(low, high, bits)
    assert scale > 0
    assert isinstance(zero_point, int)
    assert 0 <= zero_point <= 2**bits - 1
    # the codes reach both ends, to half a step
    assert -zero_point * scale <= low + scale * 0.51
    assert (2**bits - 1 - zero_point) * scale >= high - scale * 0.51


def test_after_relu_the_zero_point_is_0():
    assert affine(0.0, 6.0, 4) == (6 / 15, 0)


def test_all_negative_values_put_zero_at_the_last_code():
    assert affine(-6.0, 0.0, 8) == (6 / 255, 255)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("constant", [0.0, 3.0, -3.0, 1e-30])
@pytest.mark.parametrize("bits", BITS)
def test_constants_are_exact(constant, method, bits):
    values = np.full(100, constant, "float32")
    np.testing.assert_allclose(quantized(values, method, bits), values, rtol=1e-6)


@pytest.mark.parametrize(("code", "reach"), [("int16", 2**15 - 1), ("int32", 2**21 - 1)])
def test_the_wide_stream_has_twice_the_range(code, reach):
    scale, zero_point = wide(-3.0, 2.0, code)
    assert zero_point == 0
    assert scale * reach == pytest.approx(6.0)
    assert wide(0.0, 0.0, code) == (1.0, 0)


def weight(seed: int = 0, shape=(6, 4, 3, 3)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", BITS)
def test_weight_codes_are_near_and_in_range(method, bits):
    w = weight()
    scales = weight_scales(w, method, bits)
    codes = weight_codes(w, scales, bits)
    assert scales.dtype == np.float64
    assert scales.shape == (6,)
    assert codes.dtype == np.int8
    assert codes.shape == w.shape
    assert codes.min() >= -(2 ** (bits - 1))
    assert codes.max() <= 2 ** (bits - 1) - 1
    error = np.linalg.norm(codes * scales.reshape(-1, 1, 1, 1) - w) / np.linalg.norm(w)
    assert error < {4: 0.15, 8: 0.01}[bits]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", BITS)
def test_weight_scales_are_symmetric(method, bits):
    w = np.abs(weight())
    w[:, :, ::2] = 0
    # -8 is a code and 8 is none, so only the range without clipping is the same for both signs
    if method == "mse":
        np.testing.assert_allclose(weight_scales(-w, method, bits), weight_scales(w, method, bits), rtol=0.2)
    else:
        np.testing.assert_array_equal(weight_scales(-w, method, bits), weight_scales(w, method, bits))


@pytest.mark.parametrize("bits", BITS)
def test_minmax_uses_the_largest_code(bits):
    w = weight()
    codes = np.abs(weight_codes(w, weight_scales(w, "minmax", bits), bits).astype(int))
    np.testing.assert_array_equal(codes.reshape(6, -1).max(1), 2 ** (bits - 1) - 1)


@pytest.mark.parametrize("bits", BITS)
def test_mse_weights_beat_minmax_with_an_outlier(bits):
    w = weight(shape=(3, 500))
    w[:, 0] = 9

    def error(method):
        scales = weight_scales(w, method, bits)
        return np.square(weight_codes(w, scales, bits) * scales[:, None] - w).sum(1)

    assert (error("mse") <= error("minmax")).all()
    assert bits == 8 or (error("mse") < error("minmax")).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", BITS)
def test_an_all_zero_channel_has_scale_0_and_leaves_the_others(method, bits):
    w = weight()
    expected = weight_scales(w, method, bits)
    w[2] = 0
    scales = weight_scales(w, method, bits)
    assert scales[2] == 0
    np.testing.assert_array_equal(np.delete(scales, 2), np.delete(expected, 2))


@pytest.mark.parametrize("method", METHODS)
def test_only_an_all_zero_channel_has_scale_0(method):
    w = np.zeros((2, 60_000), "float32")
    w[0, 7] = 1.5
    assert weight_scales(w, method, 4)[0] > 0
