"""Dyadic numbers against exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hawqtvm.errors import BadInput
from hawqtvm.qnn.dyadic import dyadic, rescale, rescaled_bound, shortened

INT32 = st.integers(-(2**31), 2**31 - 1)
LARGEST = math.nextafter(2.0**30, 0)
RATIOS = st.floats(2.0**-32, 2.0**30 - 1)
MULTIPLIERS, SHIFTS = st.integers(2**30, 2**31 - 1), st.integers(1, 62)


def rounded_half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


@given(RATIOS)
@example(2.0**-32)
@example(math.nextafter(1.0, 0))
@example(math.nextafter(1.0, 2))
@example(math.nextafter(2.0**-31, 0))
def test_a_dyadic_number_is_normal_and_close(ratio):
    b, c = (int(v) for v in dyadic(ratio, "layer"))
    assert 2**30 <= b < 2**31
    assert 1 <= c <= 62
    exact = Fraction(ratio)
    assert abs(Fraction(b, 2**c) - exact) <= exact / 2**31


@given(st.floats(2.0**-32, 2.0**29))
@example(1.0)
@example(1 - 2.0**-17)
@example(math.nextafter(2.0**-31, 0))
def test_a_short_one_has_15_bits_and_is_close(ratio):
    short = float(shortened(np.float64(ratio)))
    b, c = (int(v) for v in dyadic(short, "layer"))
    assert b % 2**16 == 0
    assert Fraction(b, 2**c) == Fraction(short)
    assert abs(Fraction(short) - Fraction(ratio)) <= Fraction(ratio) / 2**15


@given(st.lists(RATIOS, min_size=1, max_size=5))
def test_an_array_is_its_elements(ratios):
    b, c = dyadic(np.array(ratios), "layer")
    assert b.dtype == c.dtype == np.int64
    assert list(zip(b, c, strict=True)) == [dyadic(r, "layer") for r in ratios]


@given(INT32)
@example(-(2**31))
@example(2**31 - 1)
def test_the_ratio_one_changes_nothing(value):
    assert [int(v) for v in dyadic(1.0, "layer")] == [2**30, 30]
    assert rescale(value, *dyadic(1.0, "layer")) == value


@given(INT32, MULTIPLIERS, SHIFTS)
@example(-(2**31), 2**31 - 1, 62)
@example(-(2**31), 2**31 - 1, 1)
def test_rescale_rounds_half_up(value, b, c):
    assert rescale(value, b, c) == rounded_half_up(Fraction(value * b, 2**c))


@pytest.mark.parametrize(("value", "expected"), [(-3, -1), (-2, -1), (-1, 0), (0, 0), (1, 1), (2, 1), (3, 2), (5, 3)])
def test_halves_go_up(value, expected):
    assert rescale(value, *dyadic(0.5, "layer")) == expected


def test_rescale_broadcasts_over_channels():
    values = np.arange(12).reshape(1, 2, 2, 3)
    b, c = dyadic(np.array([1.0, 0.5]), "layer")
    result = rescale(values, b.reshape(1, -1, 1, 1), c.reshape(1, -1, 1, 1))
    np.testing.assert_array_equal(result[0, 0], values[0, 0])
    np.testing.assert_array_equal(result[0, 1], (values[0, 1] + 1) // 2)


@given(st.integers(0, 2**31 - 1), st.floats(-1, 1), MULTIPLIERS, SHIFTS)
@example(2**31 - 1, 1.0, 2**31 - 1, 1)
@example(2**31 - 1, -1.0, 2**31 - 1, 1)
def test_the_bound_holds(bound, share, b, c):
    value = round(bound * share)
    assert abs(int(rescale(value, b, c))) <= rescaled_bound(bound, b, c)
    assert rescaled_bound(bound, b, c) == rescale(bound, b, c)


@pytest.mark.parametrize(
    "ratio", [0.0, -1.0, math.nan, math.inf, -math.inf, 2.0**30, LARGEST, math.nextafter(2.0**-32, 0), 1e300]
)
def test_ratios_without_a_dyadic_number_name_the_layer(ratio):
    with pytest.raises(BadInput, match="block.conv.*dyadic"):
        dyadic(np.array([1.0, ratio, 2.0]), "block.conv")


def test_the_message_shows_the_ratio():
    with pytest.raises(BadInput, match="1e-30"):
        dyadic(np.array([1.0, 1e-30]), "layer")
