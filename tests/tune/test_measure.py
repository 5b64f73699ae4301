"""Candidates, and how they are timed against one another."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hawqtvm.qnn.formats import Format
from hawqtvm.tune import measure as measuring
from hawqtvm.tune.candidates import candidates
from hawqtvm.tune.kernel import Arguments, activations, compiled
from schedules.cpu import conv2d_direct, conv2d_space, elementwise
from schedules.dispatch import Choice, choose
from schedules.target import find_target
from schedules.tuning_key import tuning_key
from schedules.tuning_log import median
from schedules.workload import Reformat
from tests.tune.records import AVX2, CONV, VNNI, WORKLOADS

HOST = find_target()
ADD = next(w for w in WORKLOADS if type(w).__name__ == "Elementwise")


@pytest.mark.parametrize("target", [VNNI, AVX2], ids=["vnni", "avx2"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: type(workload).__name__)
def test_candidates_begin_with_the_default_and_are_legal_and_distinct(workload, target):
    for trials in (1, 3, 100):
        found = candidates(workload, target, 2, trials)
        choice = choose(workload, target, 2)
        assert (found[0].schedule, found[0].config) == (choice.schedule, choice.config)
        assert len(found) == len(set(found)) and not any(c.measured for c in found)
        assert max(Counter(c.schedule for c in found).values()) <= trials
        assert {tuning_key(choice.workload)} <= {c.workload for c in found}
        assert all(c.schedule.check(c.config, c.workload, target) is None for c in found)
        assert found == candidates(workload, target, 2, trials)


def test_candidates_are_the_best_by_the_schedules_estimate():
    found = [c.config for c in candidates(CONV, VNNI, 1, 5)]
    cycles = {c: conv2d_space.cycles(c, CONV, VNNI, 1) for c in set(conv2d_direct.space(CONV, VNNI, 1))}
    assert sorted(cycles[c] for c in found) == sorted(cycles.values())[:5]


def test_every_schedule_has_its_candidates(monkeypatch):
    class Rival:
        NAME, Config = "rival", conv2d_direct.Config
        formats, check, space = conv2d_direct.formats, conv2d_direct.check, conv2d_direct.space
        default, cycles = conv2d_direct.default, conv2d_direct.cycles

    monkeypatch.setattr("schedules.dispatch.SCHEDULES", (conv2d_direct, Rival))
    found = candidates(CONV, VNNI, 1, 4)
    assert Counter(c.name for c in found) == {conv2d_direct.NAME: 4, "rival": 4}
    ranked = [c.config for c in found if c.name == "rival"]
    del Rival.cycles
    monkeypatch.setattr("schedules.dispatch.SCHEDULES", (Rival,))
    shuffled = [c.config for c in candidates(CONV, VNNI, 1, 4)]
    assert ranked[0] == shuffled[0] and ranked != shuffled, "no estimate, no rank"


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: type(workload).__name__)
def test_kernels_of_every_workload_run_on_random_values_in_range(workload):
    for candidate in candidates(workload, HOST, 1, 2):
        arguments = Arguments(candidate.workload)
        compiled(candidate, HOST, arguments)()
        for index, (fmt, dims) in enumerate(activations(candidate.workload)):
            codes = fmt.load(arguments.activation(index, fmt).numpy(), dims[1])
            assert codes.shape == dims and len(np.unique(codes)) > 10
            assert fmt.limits[0] <= codes.min() and codes.max() <= fmt.limits[1]


def test_candidates_share_their_activations_and_see_the_same_weights():
    arguments = Arguments(CONV)
    fmt = CONV.x
    assert arguments.activation(0, fmt) is arguments.activation(0, fmt)
    other = arguments.activation(0, replace(fmt, layout="NCHW")).numpy()
    np.testing.assert_array_equal(fmt.load(arguments.activation(0, fmt).numpy(), 32), other)
    weight, bias, b, c = arguments.parameters
    assert weight.shape == (64, 32, 3, 3) and (weight.min(), weight.max()) == (-128, 127)
    assert c.min() >= CONV.epilogue.min_shift and len(bias) == len(b) == 64
    four = Arguments(replace(CONV, weight_bits=4, epilogue=None)).parameters
    assert len(four) == 2 and (four[0].min(), four[0].max()) == (-8, 7)
    assert Arguments(ADD).parameters == []


class Machine:
    """A clock that runs as kernels of known speeds do, and what ran on it."""

    def __init__(self, monkeypatch, us: dict, noise=lambda: 0.0):
        self.now, self.log, self.us, self.noise = 0.0, [], us, noise
        monkeypatch.setattr(measuring, "perf_counter", lambda: self.now)

    def run(self, index: int) -> None:
        self.log.append(index)
        self.now += (self.us[index] + self.noise()) / 1e6

    def race(self) -> dict[int, list]:
        results = {index: [] for index in self.us}
        runs = {index: lambda index=index: self.run(index) for index in self.us}
        measuring._race(runs, results, lambda: self.log.append("sweep"))
        return results


def test_calls_take_turns_each_after_a_sweep_and_the_slow_leave(monkeypatch):
    machine = Machine(monkeypatch, {0: 100.0, 1: 90.0, 2: 300.0, 3: 104.0, 4: 110.0, 5: 91.0})
    results = machine.race()
    assert machine.log[::2] == ["sweep"] * (len(machine.log) // 2) and "sweep" not in machine.log[1::2]
    calls, first = machine.log[1::2], measuring.PASSES[0] * measuring.CALLS
    turns = [calls[6 * i : 6 * i + 6] for i in range(first)]
    assert all(sorted(turn) == list(range(6)) for turn in turns) and len(set(map(tuple, turns))) > 3
    rounds = {index: len(found) for index, found in results.items()}
    one, two, three = np.cumsum(measuring.PASSES).tolist()
    assert rounds == {0: two, 1: three, 2: one, 3: one, 4: one, 5: three}
    assert all(len(calls) == measuring.CALLS for found in results.values() for calls in found)
    assert {index: median(found) for index, found in results.items()} == pytest.approx(machine.us, abs=0.02)


def test_clearly_slower_ones_leave_even_from_the_better_half(monkeypatch):
    results = Machine(monkeypatch, {0: 100.0, 1: 116.0, 2: 200.0, 3: 200.0}).race()
    assert [len(results[index]) for index in (0, 1)] == [sum(measuring.PASSES), measuring.PASSES[0]]


def test_noise_on_half_of_the_calls_does_not_change_the_winner(monkeypatch):
    for seed in range(20):
        rng = random.Random(seed)

        def noise(rng=rng):
            return rng.choice([0.0, rng.uniform(0, 200)])

        results = Machine(monkeypatch, {0: 100.0, 1: 90.0, 2: 120.0, 3: 150.0}, noise).race()
        assert max(results, key=lambda index: (len(results[index]), -median(results[index]))) == 1


class Broken:
    """The elementwise schedule, with configs that fail each in its own way."""

    NAME = "broken"
    constants = elementwise.constants

    @staticmethod
    def build(config, workload, target):
        if config == "build":
            raise ZeroDivisionError("no such kernel")
        kernel = elementwise.build(elementwise.Config(1), workload, target)
        return kernel if config == "fine" else None


def test_a_candidate_that_fails_is_told_apart_from_the_others(monkeypatch):
    monkeypatch.setattr(measuring, "PASSES", (1,))
    key = choose(ADD, HOST, 1).workload
    entrants = [Choice(Broken, config, key) for config in ("build", "fine", "compile")]
    failed, fine, worse = measuring.measure(entrants, HOST, 1)
    assert isinstance(failed, ZeroDivisionError) and isinstance(worse, Exception)
    assert len(fine) == 1 and len(fine[0]) == measuring.CALLS and min(fine[0]) > 0


def test_nothing_that_runs_is_no_race(monkeypatch):
    key = choose(ADD, HOST, 1).workload
    (result,) = measuring.measure([Choice(Broken, "build", key)], HOST, 1)
    assert isinstance(result, ZeroDivisionError)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_sweep_reads_all_of_its_bytes(threads):
    sweep = measuring.sweeper(HOST, threads)
    sweep()
    data, total = sweep.args
    assert data.numpy().nbytes == measuring.SWEPT
    assert total.numpy().tolist() == [data.numpy().size // threads] * threads


def test_a_reformat_is_measured_between_its_own_layouts():
    plain = Reformat((1, 32, 6, 6), Format("uint8"), Format("uint8", "NCHW16c"))
    assert {c.workload for c in candidates(plain, HOST, 1, 2)} == {plain}
