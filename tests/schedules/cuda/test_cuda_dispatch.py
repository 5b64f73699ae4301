"""Which schedules a GPU's workloads take, and in which layouts."""

from dataclasses import replace

import pytest

from hawqtvm.qnn.formats import Format
from schedules.cuda import conv2d_direct, dense, elementwise, pool, portable
from schedules.dispatch import choose, io_layouts, with_layouts
from schedules.target import CUDA_TARGETS
from schedules.workload import AvgPool2d, Concat, Conv2d, Dense, Elementwise, Epilogue, MaxPool2d, Reformat, Rescaled

X, WIDE = Format("uint8"), Format("int16")
EPILOGUE = Epilogue(X, 0, 0, 255, 31)
NO_PADDING = (0, 0, 0, 0)
WORKLOADS = {
    "depthwise": (Conv2d(1, 32, 8, 8, 32, (3, 3), (1, 1), (1,) * 4, (1, 1), 32, X, 3, 8, EPILOGUE), portable),
    "odd dense": (Dense(1, 64, 10, X, 4, replace(EPILOGUE, out=Format("int32"))), portable),
    "dense": (Dense(1, 64, 10, X, 8, replace(EPILOGUE, out=Format("int32"))), dense),
    "convolution": (Conv2d(1, 32, 8, 8, 32, (3, 3), (1, 1), (1,) * 4, (1, 1), 1, X, 3, 8, EPILOGUE), conv2d_direct),
    "add": (Elementwise((1, 3, 8, 8), (Rescaled(WIDE, 0, 2**30, 33),) * 2, X, 0, 0, 255), elementwise),
    "max": (MaxPool2d((1, 64, 8, 8), X, (3, 3), (2, 2), (1,) * 4, (1, 1)), pool),
    "average": (AvgPool2d((1, 64, 7, 7), WIDE, 0, (7, 7), (1, 1), NO_PADDING, 2**30, 33, X, 0, 0, 255), pool),
    "concat": (Concat(((1, 3, 4, 4), (1, 5, 4, 4)), X, X), portable),
}


@pytest.mark.parametrize("target", CUDA_TARGETS, ids=lambda target: target.arch)
@pytest.mark.parametrize("name", WORKLOADS)
def test_all_read_and_write_hwnc(name, target):
    workload, schedule = WORKLOADS[name]
    laid = with_layouts(workload, "HWNC", "NCHW")
    choice = choose(laid, target, 1)
    assert choice.schedule is schedule
    assert io_layouts(choice.workload) == ("HWNC", "HWNC")
    assert schedule.check(choice.config, choice.workload, target) is None
    assert choose(choice.workload, target, 1) == choice


def test_a_layer_reads_the_graphs_input_as_it_lies():
    choice = choose(WORKLOADS["depthwise"][0], CUDA_TARGETS[0], 1)
    assert io_layouts(choice.workload) == ("NCHW", "HWNC")


def test_reformat_is_what_it_was_asked_for():
    workload = Reformat((1, 3, 8, 8), X, replace(X, layout="HWNC"))
    assert choose(workload, CUDA_TARGETS[0], 1).workload == workload


@pytest.mark.parametrize("schedule", [elementwise, pool, portable], ids=lambda schedule: schedule.__name__)
def test_configs_that_are_not_in_the_space_are_refused(schedule):
    workload, _ = next(pair for pair in WORKLOADS.values() if pair[1] is schedule)
    laid = with_layouts(workload, "HWNC", "HWNC")
    config = schedule.default(laid, CUDA_TARGETS[0], 1)
    assert config in schedule.space(laid, CUDA_TARGETS[0], 1)
    assert schedule.check(replace(config, threads=48), laid, CUDA_TARGETS[0])
