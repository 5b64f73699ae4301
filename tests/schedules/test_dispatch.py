"""Which schedule takes which workload, in which layouts."""

from dataclasses import replace

import pytest

from hawqtvm.qnn.formats import Format
from schedules.cpu import conv2d_direct, dense, elementwise, pool, portable
from schedules.dispatch import choose, io_layouts, with_layouts
from schedules.target import find_target
from schedules.workload import (
    AvgPool2d,
    Concat,
    Conv2d,
    Dense,
    Elementwise,
    Epilogue,
    MaxPool2d,
    Reformat,
    Requantized,
    Rescaled,
)

LEVELS = [find_target(name) for name in ("avx512-vnni", "avx-vnni", "avx2")]
VNNI = LEVELS[0]
BASELINE = find_target("x86-64")
DIMS = (1, 32, 6, 6)
X, WIDE = Format("uint8"), Format("int16")
EPILOGUE = Epilogue(X, 0, 0, 255, 34, Rescaled(WIDE, 0, 2**30, 31))
CONV = Conv2d(1, 32, 6, 6, 32, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, X, 0, 8, EPILOGUE)
STEM = replace(CONV, in_channels=3)
CODES = Requantized(Rescaled(X, 3, 2**30, 34), Format("uint4", packed=True), 1, 0, 15)
TWICE = replace(CONV, epilogue=replace(EPILOGUE, codes=CODES))
DENSE = Dense(1, 32, 10, X, 8, replace(EPILOGUE, residual=None))
ADD = Elementwise(DIMS, (Rescaled(WIDE, 0, 2**30, 31), Rescaled(X, 3, 2**30, 31)), X, 0, 0, 255)
MAX = MaxPool2d(DIMS, X, (2, 2), (2, 2), (0, 0, 0, 0), (1, 1))
AVERAGE = AvgPool2d(DIMS, X, 0, (6, 6), (1, 1), (0, 0, 0, 0), 2**30, 36, X, 0, 0, 255)
CONCAT = Concat((DIMS, DIMS), X, X)
REFORMAT = Reformat(DIMS, X, Format("uint8", "NCHW16c"))
ALL = [CONV, TWICE, STEM, DENSE, ADD, MAX, AVERAGE, CONCAT, REFORMAT]
BLOCKED = ("NCHW16c", "NCHW16c")


@pytest.mark.parametrize(
    ("workload", "schedule", "layouts"),
    [
        (CONV, conv2d_direct, BLOCKED),
        (TWICE, conv2d_direct, BLOCKED),
        (STEM, conv2d_direct, ("NCHW", "NCHW16c")),
        (DENSE, dense, BLOCKED),
        (MAX, pool, BLOCKED),
        (AVERAGE, pool, BLOCKED),
    ],
    ids=["conv", "two outputs", "stem", "dense", "max", "average"],
)
@pytest.mark.parametrize("layout", ["NCHW", "NCHW16c"])
@pytest.mark.parametrize("target", LEVELS, ids=lambda target: target.name)
def test_the_fast_schedule_takes_its_own_in_its_layouts(workload, schedule, layouts, layout, target):
    choice = choose(with_layouts(workload, layout, layout), target, 2)
    assert choice.schedule is schedule
    assert choice.name == schedule.NAME
    assert io_layouts(choice.workload) == layouts
    assert schedule.check(choice.config, choice.workload, target) is None


@pytest.mark.parametrize("layout", ["NCHW", "NCHW16c"])
@pytest.mark.parametrize(("channels", "wanted"), [(32, "NCHW16c"), (3, "NCHW")])
def test_elementwise_takes_blocks_unless_they_would_be_empty(layout, channels, wanted):
    few = replace(ADD, dims=(1, channels, 6, 6))
    choice = choose(with_layouts(few, layout, layout), BASELINE, 1)
    assert choice.schedule is elementwise
    assert io_layouts(choice.workload) == (wanted, wanted)


@pytest.mark.parametrize("workload", [CONV, STEM, DENSE], ids=["conv", "stem", "dense"])
@pytest.mark.parametrize("layout", ["NCHW", "NCHW16c"])
def test_layers_without_avx2_fall_back_reading_what_lies_there(workload, layout):
    choice = choose(with_layouts(workload, layout, layout), BASELINE, 1)
    assert choice.schedule is portable
    assert io_layouts(choice.workload) == (layout, "NCHW16c")
    if workload.epilogue.residual:
        assert choice.workload.epilogue.residual.format == Format("int16", "NCHW16c")


@pytest.mark.parametrize(
    "change",
    [
        {"groups": 2},
        {"groups": 32},
        {"x": Format("int16")},
        {"in_channels": 3, "dilation": (1, 2)},
    ],
    ids=["groups", "depthwise", "wide input", "dilated stem"],
)
def test_convolutions_that_the_fast_schedule_refuses_fall_back(change):
    workload = replace(CONV, **change)
    assert choose(workload, BASELINE, 1).schedule is portable
    wanted = conv2d_direct.formats(workload, VNNI)
    if wanted is None:
        assert choose(workload, VNNI, 1).schedule is portable
    else:  # it has a way of its own
        laid = with_layouts(workload, wanted[0].layout, wanted[1])
        assert conv2d_direct.check(choose(workload, VNNI, 1).config, laid, VNNI) is None


@pytest.mark.parametrize("epilogue", [None, EPILOGUE], ids=["sums", "codes"])
@pytest.mark.parametrize("target", [*LEVELS, BASELINE], ids=lambda target: target.name)
@pytest.mark.parametrize("workload", [CONV, replace(CONV, groups=2), STEM, DENSE])
def test_layers_with_and_without_an_epilogue_find_a_schedule(workload, target, epilogue):
    choice = choose(replace(workload, epilogue=epilogue), target, 1)
    assert choice.schedule.check(choice.config, choice.workload, target) is None
    choice.schedule.build(choice.config, choice.workload, target)


def test_moving_codes_keeps_one_layout_or_the_one_asked_for():
    for layout in ("NCHW", "NCHW16c"):
        choice = choose(with_layouts(CONCAT, layout, "NCHW"), VNNI, 1)
        assert choice.schedule is portable
        assert io_layouts(choice.workload) == (layout, layout)
    choice = choose(REFORMAT, VNNI, 1)
    assert choice.schedule is portable
    assert choice.workload == REFORMAT


@pytest.mark.parametrize("workload", ALL, ids=lambda workload: type(workload).__name__)
def test_with_layouts_changes_layouts_only(workload):
    for x_layout, out_layout in (("NCHW16c", "NCHW16c"), ("NCHW", "NCHW16c"), ("NCHW16c", "NCHW")):
        laid = with_layouts(workload, x_layout, out_layout)
        assert io_layouts(laid) == (x_layout, x_layout if workload is MAX else out_layout)
        assert with_layouts(laid, *io_layouts(workload)) == workload
        if workload is CONV:
            assert laid.epilogue.residual.format.layout == out_layout
        if workload is TWICE:
            codes = laid.epilogue.codes
            assert {codes.y.format.layout, codes.out.layout} == {out_layout}


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("target", [*LEVELS, BASELINE], ids=lambda target: target.name)
@pytest.mark.parametrize("workload", ALL, ids=lambda workload: type(workload).__name__)
def test_choosing_again_in_the_chosen_layouts_changes_nothing(workload, target, threads):
    choice = choose(workload, target, threads)
    assert choose(choice.workload, target, threads) == choice
