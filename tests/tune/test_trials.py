"""What a tuning run measures and what it leaves, when the log already holds some of it."""

import math
from dataclasses import asdict, replace

import pytest

from hawqtvm.tune import trials as tuning
from hawqtvm.tune.candidates import candidate_space
from hawqtvm.tune.search import BATCH
from hawqtvm.tune.trials import Trials
from schedules.tuning_key import tuning_key
from schedules.tuning_log import read
from tests.tune.records import CONV, DENSE, HERE, THERE, VNNI

SPACE = candidate_space(CONV, VNNI, 1)


class Stopwatch:
    """Measures nothing: ``us[number]`` microseconds for a candidate of CONV's space, 100 for others, by ``speed``.

    ``us`` may hold exceptions; ``entrants`` are the candidates' numbers of each race.
    """

    def __init__(self, us=None, speed=1.0):
        self.us, self.speed, self.entrants = us or {}, speed, []

    def __call__(self, entrants):
        numbers = [SPACE.choices.index(replace(c, measured=False)) for c in entrants]
        self.entrants.append(numbers)
        times = [self.us.get(number, 100.0) for number in numbers]
        return [us if isinstance(us, Exception) else [(us * self.speed,)] * 3 for us in times]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "device" / "log.jsonl"


@pytest.fixture
def endless(monkeypatch):
    """A search that ends with its trials only."""
    monkeypatch.setattr("hawqtvm.tune.search.GAIN", -100.0)


def opened(path, device=HERE, threads=1):
    return Trials(path, VNNI, threads, device)


def test_every_candidate_leaves_a_record_and_the_fastest_is_the_row(path):
    watch, trials = Stopwatch({0: 90.0}), opened(path)
    trials.search(CONV, 4, watch)
    (order,) = watch.entrants
    assert order[0] == 0 and len(order) == 4
    records = list(read(path))
    assert [r.config for r in records] == [asdict(SPACE.choices[number].config) for number in order]
    assert [r.median for r in records] == [90.0, 100.0, 100.0, 100.0]
    assert {(r.device, r.target, r.threads, r.workload, r.schedule) for r in records} == {
        (HERE, VNNI.name, 1, tuning_key(CONV), "direct_conv2d")
    }
    assert len({r.measured for r in records}) == 1
    row = trials.row("int8", CONV, ["a", "b"])
    assert (row.us, row.default_us, row.config) == (90.0, 90.0, str(SPACE.choices[0].config))
    assert (row.plan, row.layers, row.tried, row.failed) == ("int8", ["a", "b"], 4, 0)


def test_races_have_the_best_so_far_in_common_and_the_row_tells_times_of_one_race(endless, path):
    falling = {number: 100.0 - number for number in range(len(SPACE.choices))}
    watch, trials = Stopwatch(falling), opened(path)
    trials.search(CONV, BATCH + 3, watch)
    first, second = watch.entrants
    assert second[0] == max(first) and len(second) == 4
    slower = Stopwatch(falling, speed=2.0)  # the machine's clock fell
    trials.search(CONV, BATCH + 6, slower)
    best = max(number for race in (*watch.entrants, *slower.entrants) for number in race)
    row = trials.row("int8", CONV, [])
    assert row.config == str(SPACE.choices[best].config) and row.tried == BATCH + 6
    assert row.us == 2 * (100.0 - best) and row.default_us == pytest.approx(200.0)
    assert opened(path).row("int8", CONV, []) == row


def test_what_the_log_has_is_not_measured_again(path):
    opened(path).search(CONV, 4, Stopwatch())
    content = path.read_bytes()
    again, watch = opened(path), Stopwatch()
    again.search(CONV, 4, watch)
    again.search(CONV, 2, watch)
    again.search(replace(CONV, epilogue=replace(CONV.epilogue, min_shift=40)), 4, watch)
    assert watch.entrants == [] and path.read_bytes() == content


def test_a_search_that_ended_does_not_begin_again(path):
    watch = Stopwatch()  # nothing is better than the default
    opened(path).search(CONV, 100, watch)
    assert sum(map(len, watch.entrants)) < len(SPACE.choices)
    again = Stopwatch()
    opened(path).search(CONV, 100, again)
    assert again.entrants == []


def test_a_run_that_was_killed_goes_on_as_it_would_have(endless, path):
    us = {number: 100.0 - number for number in range(len(SPACE.choices))}
    whole = Stopwatch(us)
    opened(path).search(CONV, 20, whole)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:BATCH]))  # after the first race
    rest = Stopwatch(us)
    opened(path).search(CONV, 20, rest)
    assert rest.entrants == whole.entrants[1:]
    path.write_bytes("".join(lines[:BATCH]).encode()[:-30])  # while the first race's last line was written
    torn = Stopwatch(us)
    trials = opened(path)
    trials.search(CONV, 20, torn)
    tried = [number for race in torn.entrants for number in race[1:]]
    assert len(set(tried)) == len(tried) and trials.row("int8", CONV, []).tried == 20


def test_failures_are_records_and_are_not_tried_again(path):
    watch = Stopwatch({0: ValueError("no\nsuch knob"), **dict.fromkeys(range(20, 28), RuntimeError("x" * 10_000))})
    trials = opened(path)
    trials.search(CONV, len(SPACE.choices), watch)
    failed = [record for record in read(path) if record.error is not None]
    assert (failed[0].error, failed[0].rounds) == ("ValueError: no\nsuch knob", ())
    assert all(len(record.error) == tuning.LONGEST_ERROR for record in failed[1:])
    row = trials.row("int8", CONV, [])
    assert (row.us, row.default_us, row.failed) == (100.0, None, len(failed))
    tried = [number for race in watch.entrants for number in race]
    assert tried.count(0) == 1


def test_when_all_fail_the_default_stays(path):
    watch = Stopwatch(dict.fromkeys(range(len(SPACE.choices)), ValueError("no")))
    trials = opened(path)
    trials.search(CONV, 3, watch)
    row = trials.row("int8", CONV, [])
    assert (row.us, row.default_us, row.failed) == (None, None, 3)
    assert row.config == str(SPACE.choices[0].config)


def test_scores_chain_over_the_references(endless, path):
    watch = Stopwatch({number: 100.0 / (1 + number) for number in range(len(SPACE.choices))})
    trials = opened(path)
    trials.search(CONV, BATCH, watch)
    trials.search(CONV, 2 * BATCH, Stopwatch(watch.us, speed=1.6))
    (scores,) = trials._scores.values()
    wanted = {trials._trial(SPACE.choices[n]): -math.log(1 + n) for n in range(len(SPACE.choices))}
    assert len(scores) == 2 * BATCH and all(score == pytest.approx(wanted[name]) for name, score in scores.items())


def test_other_targets_threads_and_devices_are_other_trials(path):
    watch = Stopwatch()
    opened(path).search(CONV, 2, watch)
    opened(path, THERE).search(CONV, 2, watch)
    assert len(watch.entrants) == 2


def test_workloads_share_a_log_and_a_model(path):
    trials = opened(path)
    trials.search(CONV, 2, Stopwatch())
    trials.search(DENSE, 2, lambda entrants: [[(7.0,)]] * len(entrants))
    assert trials.row("int8", DENSE, []).us == 7.0 and trials.row("int8", CONV, []).us == 100.0
    assert opened(path).row("int8", DENSE, []) == trials.row("int8", DENSE, [])
