"""Candidates, and how they are timed against one another."""

import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hawqtvm.qnn.formats import Format
from hawqtvm.tune import measure as measuring
from hawqtvm.tune.candidates import candidate_space
from hawqtvm.tune.kernel import Arguments, activations, build, compiled, parameters
from hawqtvm.tune.measure import log_ratio
from schedules.cpu import conv2d_direct, conv2d_space, winograd
from schedules.dispatch import choose
from schedules.target import find_target
from schedules.tuning_key import tuning_key
from schedules.tuning_log import median
from schedules.workload import Conv2d, Reformat
from tests.tune.records import AVX2, CONV, EPILOGUE, VNNI, WORKLOADS

HOST = find_target()
ADD = next(w for w in WORKLOADS if type(w).__name__ == "Elementwise")
NARROW = replace(EPILOGUE, out=Format("uint4"), hi=15, residual=None)
WINOGRAD = Conv2d(1, 64, 56, 56, 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, Format("uint4"), 0, 4, NARROW, 4)


@pytest.mark.parametrize("target", [VNNI, AVX2], ids=["vnni", "avx2"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: type(workload).__name__)
def test_candidates_begin_with_the_default_and_are_legal_and_distinct(workload, target):
    space = candidate_space(workload, target, 2)
    choice = choose(workload, target, 2)
    assert (space.choices[0].schedule, space.choices[0].config) == (choice.schedule, choice.config)
    assert len(space.choices) == len(set(space.choices)) and not any(c.measured for c in space.choices)
    assert {tuning_key(choice.workload)} <= {c.workload for c in space.choices}
    assert all(c.schedule.check(c.config, c.workload, target) is None for c in space.choices)
    assert space.choices == candidate_space(workload, target, 2).choices


def test_the_prior_is_the_schedules_estimate():
    space = candidate_space(CONV, VNNI, 1)
    cycles = [conv2d_space.cycles(c.config, CONV, VNNI, 1) for c in space.choices]
    assert {c.config for c in space.choices} == {space.choices[0].config, *conv2d_direct.space(CONV, VNNI, 1)}
    assert [cycles[0] * math.exp(prior) for prior in space.priors] == pytest.approx(cycles)


def test_all_schedules_that_take_a_workload_compete():
    space = candidate_space(WINOGRAD, VNNI, 1)
    names = Counter(c.name for c in space.choices)
    assert set(names) == {winograd.NAME, conv2d_direct.NAME} and min(names.values()) > 10
    assert space.defaults == 2 and {c.name for c in space.choices[:2]} == set(names)
    missed = winograd.Config(1, 7, 2, 1, 1, 28, 1, 2, False)
    assert missed in {c.config for c in space.choices}, "faster than the estimate has it"


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: type(workload).__name__)
def test_kernels_of_every_workload_run_on_random_values_in_range(workload):
    for candidate in candidate_space(workload, HOST, 1).choices[:2]:
        compiled(candidate, HOST)()
        arguments = Arguments(candidate.workload)
        for index, (fmt, dims) in enumerate(activations(candidate.workload)):
            codes = fmt.load(arguments.activation(index, fmt).numpy(), dims[1])
            assert codes.shape == dims and len(np.unique(codes)) > 10
            assert fmt.limits[0] <= codes.min() and codes.max() <= fmt.limits[1]


def test_constants_that_loading_expands_are_expanded():
    four = replace(WINOGRAD, in_channels=32, out_channels=32, height=8, width=8)
    space = candidate_space(four, HOST, 1)
    for choice in space.choices[:1] + [c for c in space.choices if getattr(c.config, "expanded", False)][:1]:
        built = build(choice, HOST, parameters(four))
        arguments = built.arguments(built.module, Arguments(choice.workload))
        read = [stored for _, stored in built.constants if stored is not None]
        shapes = [(tuple(tensor.shape), str(tensor.dtype)) for tensor in arguments]
        assert read and all(stored in shapes for stored in read)
        expanded = next(t.numpy() for t in arguments if (tuple(t.shape), str(t.dtype)) == read[0])
        assert len(np.unique(expanded)) > 10


def test_candidates_share_their_activations_and_see_the_same_weights():
    arguments = Arguments(CONV)
    fmt = CONV.x
    assert arguments.activation(0, fmt) is arguments.activation(0, fmt)
    other = arguments.activation(0, replace(fmt, layout="NCHW")).numpy()
    np.testing.assert_array_equal(fmt.load(arguments.activation(0, fmt).numpy(), 32), other)
    weight, bias, b, c = parameters(CONV)
    assert weight.shape == (64, 32, 3, 3) and (weight.min(), weight.max()) == (-128, 127)
    assert c.min() >= CONV.epilogue.min_shift and len(bias) == len(b) == 64
    four = parameters(replace(CONV, weight_bits=4, epilogue=None))
    assert len(four) == 2 and (four[0].min(), four[0].max()) == (-8, 7)
    assert parameters(ADD) == []


class Machine:
    """A clock that runs as kernels of known speeds do, and whose turns were when."""

    def __init__(self, us: dict, factor=lambda now: 1.0):
        self.now, self.log, self.us, self.factor = 0.0, [], us, factor

    def turn(self, index: int):
        self.log.append(index)
        calls = tuple(self.us[index] * self.factor(self.now) + i for i in (0.5, 0.0, 3.0))
        self.now += 1.0
        return calls

    def race(self) -> dict[int, list]:
        return measuring.race({index: lambda index=index: self.turn(index) for index in self.us}, lambda: 0.0)


def test_rounds_are_between_turns_of_the_reference_and_the_slow_leave():
    machine = Machine({3: 100.0, 0: 90.0, 1: 300.0, 2: 104.0, 4: 110.0, 5: 91.0})
    results = machine.race()
    first = [machine.log[7 * i : 7 * i + 7] for i in range(measuring.PASSES[0])]
    assert all(turns[0] == turns[-1] == 3 and sorted(turns[:-1]) == list(range(6)) for turns in first)
    assert len(set(map(tuple, first))) > 1
    one, two, three = np.cumsum(measuring.PASSES).tolist()
    rounds = {index: len(found) for index, found in results.items()}
    assert rounds == {3: three, 0: three, 1: one, 2: one, 4: one, 5: three}
    assert {index: median(found) for index, found in results.items()} == pytest.approx(machine.us)


def test_clearly_slower_ones_leave_even_from_the_better_half_but_never_the_reference():
    results = Machine({0: 200.0, 1: 116.0, 2: 100.0, 3: 300.0}).race()
    assert [len(results[index]) for index in range(4)] == [11, 3, 11, 3]


def test_a_disturbed_round_is_repeated():
    def busy(now):
        return 2.0 if 2 <= now < 6 else 1.0

    machine = Machine({0: 100.0, 1: 90.0, 2: 95.0}, busy)
    results = machine.race()
    assert all(min(calls) in (100.0, 90.0, 95.0) for found in results.values() for calls in found)
    quiet = Machine({0: 100.0, 1: 90.0, 2: 95.0})
    quiet.race()
    assert len(machine.log) > len(quiet.log)


def test_a_machine_that_is_never_quiet_still_gets_its_times():
    chance = random.Random(0)
    machine = Machine({0: 100.0, 1: 50.0}, lambda now: chance.choice([1.0, 1.5]))
    results = machine.race()
    assert len(results[0]) == sum(measuring.PASSES)
    assert log_ratio(results[1], results[0]) < math.log(0.8)


def test_ratios_are_free_of_what_slows_both():
    reference = [(100.0, 120.0), (160.0, 170.0), (100.0,), (900.0,)]
    other = [(90.0, 200.0), (144.0, 150.0), (90.0,)]
    assert log_ratio(other, reference) == pytest.approx(math.log(0.9))
    assert log_ratio(reference, reference) == 0.0


def test_a_long_race_ends_early_but_not_without_times():
    clock = iter(range(0, 10**6, 50))
    turns = {index: lambda us=us: (us,) for index, us in ((0, 5.0), (1, 6.0))}
    results = measuring.race(turns, lambda: next(clock))
    assert [len(results[index]) for index in (0, 1)] == [1, 1]


def test_a_reformat_is_measured_between_its_own_layouts():
    plain = Reformat((1, 32, 6, 6), Format("uint8"), Format("uint8", "NCHW16c"))
    assert {c.workload for c in candidate_space(plain, HOST, 1).choices} == {plain}
