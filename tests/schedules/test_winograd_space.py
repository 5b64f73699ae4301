"""Which convolutions and configs the Winograd schedule takes, and why not the others."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from levels import LEVELS
from winograd_cases import STRIDES, VNNI, configs, workloads

from hawqtvm.qnn.formats import Format
from schedules.cpu import winograd
from schedules.cpu.winograd_geometry import Config, product_dot4
from schedules.target import find_target
from schedules.workload import Conv2d, Epilogue, Rescaled

CODES = Format("uint4", "NCHW16c", packed=True)
EPILOGUE = Epilogue(CODES, 0, 0, 15, 38)
CONV = Conv2d(4, 32, 7, 7, 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, CODES, 0, 4, EPILOGUE, headroom=2)
ONE = Config(tile_rows=1, tile_columns=3, oc_tile=2, repeat=1, combined=1, band=3, images=1, oc_groups=1, split=False)
SPLIT = replace(ONE, split=True)


@pytest.mark.parametrize("config", [ONE, SPLIT], ids=["whole", "split"])
@pytest.mark.parametrize("strides", STRIDES, ids=str)
def test_takes(config, strides):
    size = {"height": 7 * strides[0], "width": 7 * strides[1]}
    assert winograd.check(config, replace(CONV, strides=strides, **size), VNNI) is None


KIND = "only 3x3 convolutions of uint4 and 4-bit weights"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight_bits": 8}, KIND),
        ({"x": Format("uint8", "NCHW16c")}, KIND),
        ({"kernel": (5, 5)}, KIND),
        ({"kernel": (3, 1)}, KIND),
        ({"dilation": (2, 2)}, KIND),
        ({"groups": 2}, KIND),
        ({"strides": (3, 3)}, KIND),
        ({"strides": (1, 3)}, KIND),
        ({"x": Format("uint4", packed=True)}, "input must be"),
        ({"epilogue": None}, "needs an epilogue"),
        ({"epilogue": replace(EPILOGUE, out=Format("uint4"))}, "outputs and residual must be NCHW16c"),
        (
            {"epilogue": replace(EPILOGUE, residual=Rescaled(Format("int16"), 0, 2**30, 31))},
            "outputs and residual must be NCHW16c",
        ),
        ({"padding": (0, 0, 0, 0), "height": 2}, "empty"),
        ({"padding": (0, 0, 0, 0), "width": 1}, "empty"),
    ],
    ids=str,
)
def test_refuses_workloads(change, reason):
    workload = replace(CONV, **change)
    assert reason in winograd.check(ONE, workload, VNNI)
    assert (winograd.formats(workload, VNNI) is None) == ("must be" not in reason)


def test_refuses_processors_without_the_instructions():
    assert winograd.formats(CONV, find_target("x86-64")) is None
    assert "on AVX2" in winograd.check(ONE, CONV, find_target("x86-64"))


@pytest.mark.parametrize("headroom", [0, 1, 2])
@pytest.mark.parametrize(("strides", "needed"), list(zip(STRIDES, (2, 0, 1, 1), strict=True)), ids=str)
def test_headroom_for_one_bit_of_each_axis_at_stride_1(strides, needed, headroom):
    workload = replace(CONV, strides=strides, height=14, width=14, headroom=headroom)
    reason = winograd.check(ONE, workload, VNNI)
    assert reason is None if headroom >= needed else "may leave int32" in reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tile_columns": 4, "tile_rows": 2, "oc_tile": 4, "band": 4}, "accumulators"),
        ({"tile_columns": 5}, "larger than the output"),
        ({"band": 5}, "larger than the output"),
        ({"tile_rows": 4, "oc_tile": 1}, "larger than the output"),
        ({"tile_rows": 2}, "all their columns"),
        ({"images": 3}, "divide the batch"),
        ({"oc_tile": 3}, "channel blocks"),
        ({"oc_groups": 4}, "channel blocks"),
        ({"repeat": 2}, "repeat at most combined"),
        ({"combined": 7}, "combined at most all"),
    ],
    ids=str,
)
def test_refuses_configs(change, reason):
    assert reason in winograd.check(replace(ONE, **change), CONV, VNNI)


@pytest.mark.parametrize(
    ("change", "band", "reason"),
    [
        ({"height": 8, "width": 8}, 4, "nothing to split"),
        ({}, 2, "all rows"),
        ({"x_zero_point": 1}, 3, "padding of 0"),
        ({"x_zero_point": 1, "height": 1, "width": 14, "strides": (1, 2)}, 1, "padding of 0"),
        ({"padding": (1, 1, 0, 1), "height": 8}, 3, "padding of 0"),
        ({"padding": (1, 1, 1, 0), "width": 8}, 3, "padding of 0"),
    ],
    ids=str,
)
def test_refuses_splits(change, band, reason):
    assert reason in winograd.check(replace(SPLIT, band=band), replace(CONV, **change), VNNI)


@pytest.mark.parametrize("change", [{"x_zero_point": 1}, {"padding": (0, 0, 0, 0), "height": 15, "width": 15}], ids=str)
def test_stride_2_splits_without_padding_of_0(change):
    workload = replace(CONV, strides=(2, 2), height=14, width=14)
    assert winograd.check(SPLIT, replace(workload, **change), VNNI) is None


@settings(deadline=None)
@given(workloads(), st.sampled_from(LEVELS), st.sampled_from([1, 2, 3]), st.data())
def test_a_space_is_legal_and_holds_its_default(workload, target, threads, data):
    space = winograd.space(workload, target, threads)
    assert winograd.default(workload, target, threads) in space
    assert [winograd.check(config, workload, target) for config in space] == [None] * len(space)
    assert winograd.check(data.draw(configs(workload, target, threads)), workload, target) is None


@pytest.mark.parametrize(("strides", "words"), list(zip(STRIDES, (3, 4, 4, 4), strict=True)), ids=str)
def test_words_whose_products_cannot_saturate(strides, words):
    """At stride 1 along both axes codes reach 60 and weights 72: four words of pairs of them would leave int16."""
    assert product_dot4(find_target("avx2"), replace(CONV, strides=strides)).words == words
