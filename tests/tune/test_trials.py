"""What a tuning run measures and what it leaves, when the log already holds some of it."""

from dataclasses import asdict, replace

import pytest

from hawqtvm.tune import trials as tuning
from hawqtvm.tune.candidates import candidates
from hawqtvm.tune.trials import Trials
from schedules.tuning_key import tuning_key
from schedules.tuning_log import read
from tests.tune.records import CONV, DENSE, VNNI


@pytest.fixture
def stopwatch(monkeypatch):
    """Measures nothing: ``us[number]`` microseconds for the candidate of this number, 100 less it for others.

    ``us`` may hold exceptions; ``entrants`` are the candidates of each call.
    """

    class Stopwatch:
        us: dict = {}
        entrants: list = []

        def measure(self, entrants, target, threads):
            self.entrants.append(entrants)
            order = candidates(CONV, VNNI, 1, 100)
            times = [self.us.get(order.index(replace(c, measured=False)), 100.0) for c in entrants]
            return [us if isinstance(us, Exception) else [(us,)] * 3 for us in times]

    watch = Stopwatch()
    watch.us, watch.entrants = {}, []
    monkeypatch.setattr(tuning, "measure", watch.measure)
    return watch


@pytest.fixture
def path(tmp_path):
    return tmp_path / "device" / "log.jsonl"


def configs(choices):
    return [choice.config for choice in choices]


def test_every_candidate_leaves_a_record_and_the_fastest_is_the_row(stopwatch, path):
    stopwatch.us = {0: 90.0, 2: 40.0}
    trials = Trials(path, VNNI, 1)
    trials.measure(CONV, 4)
    order = candidates(CONV, VNNI, 1, 4)
    assert stopwatch.entrants == [order]
    records = list(read(path))
    assert [r.config for r in records] == [asdict(c) for c in configs(order)]
    assert [r.median for r in records] == [90.0, 100.0, 40.0, 100.0]
    assert {(r.target, r.threads, r.workload, r.schedule) for r in records} == {
        (VNNI.name, 1, tuning_key(CONV), "direct_conv2d")
    }
    assert len({r.measured for r in records}) == 1
    row = trials.row(CONV, ["a", "b"])
    assert (row.us, row.default_us, row.config) == (40.0, 90.0, str(order[2].config))
    assert (row.layers, row.tried, row.failed) == (["a", "b"], 4, 0)


def test_what_the_log_has_is_not_measured_again(stopwatch, path):
    Trials(path, VNNI, 1).measure(CONV, 4)
    content = path.read_bytes()
    again = Trials(path, VNNI, 1)
    again.measure(CONV, 4)
    again.measure(CONV, 2)
    again.measure(replace(CONV, epilogue=replace(CONV.epilogue, min_shift=40)), 4)
    assert len(stopwatch.entrants) == 1 and path.read_bytes() == content


def test_more_trials_are_measured_beside_the_best_so_far(stopwatch, path):
    stopwatch.us = {1: 40.0}
    Trials(path, VNNI, 1).measure(CONV, 3)
    stopwatch.us = {1: 80.0, 4: 70.0}
    trials = Trials(path, VNNI, 1)
    trials.measure(CONV, 6)
    order = candidates(CONV, VNNI, 1, 6)
    assert configs(stopwatch.entrants[1]) == configs([order[1], *order[3:]])
    row = trials.row(CONV, [])
    assert (row.us, row.config, row.tried) == (70.0, str(order[4].config), 6)
    assert Trials(path, VNNI, 1).row(CONV, []) == row


def test_a_run_that_was_killed_loses_no_more_than_the_line_it_wrote(stopwatch, path):
    Trials(path, VNNI, 1).measure(CONV, 4)
    path.write_bytes(path.read_bytes()[:-30])
    trials = Trials(path, VNNI, 1)
    trials.measure(CONV, 4)
    order = configs(candidates(CONV, VNNI, 1, 4))
    assert configs(stopwatch.entrants[1]) == [order[0], order[3]]
    assert len(list(read(path))) == 4 and trials.row(CONV, []).tried == 4


def test_failures_are_records_and_are_not_tried_again(stopwatch, path):
    stopwatch.us = {0: ValueError("no\nsuch knob"), 1: 50.0, 2: RuntimeError("x" * 10_000)}
    trials = Trials(path, VNNI, 1)
    trials.measure(CONV, 3)
    failed, fine, long = read(path)
    assert (failed.error, failed.rounds) == ("ValueError: no\nsuch knob", ())
    assert fine.error is None and len(long.error) == tuning.LONGEST_ERROR
    row = trials.row(CONV, [])
    assert (row.us, row.default_us, row.tried, row.failed) == (50.0, None, 3, 2)
    Trials(path, VNNI, 1).measure(CONV, 3)
    assert len(stopwatch.entrants) == 1


def test_when_all_fail_the_default_stays(stopwatch, path):
    stopwatch.us = dict.fromkeys(range(3), ValueError("no"))
    trials = Trials(path, VNNI, 1)
    trials.measure(CONV, 3)
    row = trials.row(CONV, [])
    assert (row.us, row.default_us, row.failed) == (None, None, 3)
    assert row.config == str(candidates(CONV, VNNI, 1, 1)[0].config)
    trials.measure(CONV, 4)
    assert configs(stopwatch.entrants[1]) == configs(candidates(CONV, VNNI, 1, 4))[3:]


def test_another_target_and_other_threads_are_other_trials(stopwatch, path):
    Trials(path, VNNI, 1).measure(CONV, 2)
    Trials(path, VNNI, 2).measure(CONV, 1)
    assert len(stopwatch.entrants) == 2


def test_workloads_share_a_log(stopwatch, path, monkeypatch):
    trials = Trials(path, VNNI, 1)
    trials.measure(CONV, 2)
    monkeypatch.setattr(tuning, "measure", lambda entrants, *_: [[(7.0,)]] * len(entrants))
    trials.measure(DENSE, 2)
    assert trials.row(DENSE, []).us == 7.0 and trials.row(CONV, []).us == 100.0
    assert Trials(path, VNNI, 1).row(DENSE, []) == trials.row(DENSE, [])
