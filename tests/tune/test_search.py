"""Which candidates a search measures, when it ends, and what the cost model makes of what was measured."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hawqtvm.tune.candidates import Space, candidate_space
from hawqtvm.tune.cost_model import CostModel
from hawqtvm.tune.features import config_features, workload_features
from hawqtvm.tune.search import BATCH, GAIN, PATIENCE, UNTRIED, propose
from tests.tune.records import CONV, VNNI, WORKLOADS


class Oracle:
    """Predicts the true costs."""

    def __init__(self, costs):
        self.costs = costs

    def predict(self, rows, priors):
        return [self.costs[int(row["index"])] for row in rows]


def space_of(count: int, defaults: int = 1) -> Space:
    space = Space([None] * count, defaults, [0.0] * count)
    space.__dict__["features"] = [{"index": float(index)} for index in range(count)]
    return space


def searched(space, costs, model, trials, failing=frozenset(), seed=0):
    """The races of a search among candidates of these costs."""
    races = []
    while batch := propose(space, races, model, trials, seed):
        races.append({index: None if index in failing else costs[index] for index in batch})
    return races


@given(
    costs=st.lists(st.floats(-1, 1), min_size=1, max_size=80),
    trials=st.integers(1, 60),
    defaults=st.integers(1, 3),
    seed=st.integers(0, 5),
    data=st.data(),
)
@settings(deadline=None)
def test_a_search_tries_each_candidate_once_and_ends_within_its_trials(costs, trials, defaults, seed, data):
    failing = data.draw(st.sets(st.integers(0, len(costs) - 1)))
    space = space_of(len(costs), min(defaults, len(costs)))
    races = searched(space, costs, Oracle(costs), trials, failing, seed)
    tried = [index for race in races for index in race]
    assert len(tried) == len(set(tried)) <= min(trials, len(costs)) and all(len(race) <= BATCH for race in races)
    assert tried[0] == 0, "what a build takes without measurements"
    assert set(range(min(space.defaults, trials, BATCH))) <= set(races[0])
    for done in range(len(races) + 1):  # killed there, it goes on alike
        assert propose(space, races[:done], Oracle(costs), trials, seed) == (
            list(races[done]) if done < len(races) else []
        )


def test_a_model_that_knows_finds_the_best_at_once():
    costs = [0.0, *random.Random(1).sample([i / 100 for i in range(-60, 139)], 199)]
    races = searched(space_of(200), costs, Oracle(costs), 100)
    best = min(costs)
    assert best in races[0].values()
    assert len(races) == 2, "nothing better is expected after one race that found nothing"
    ranked = sorted(range(1, 200), key=costs.__getitem__)
    assert list(races[0])[: BATCH - UNTRIED] == [0, *ranked[: BATCH - UNTRIED - 1]]


def test_a_search_goes_on_while_it_gains_and_has_patience_with_a_model_that_hopes():
    space, doubts, hopes = space_of(100), Oracle([9.0] * 100), Oracle([-9.0] * 100)
    gaining = [{0: 0.0}, {1: -0.1}, {2: -0.1 - 2 * GAIN}]
    assert propose(space, gaining, doubts, 60)
    stale = [*gaining, {3: -0.1 - 2.5 * GAIN, 4: None}]
    assert propose(space, stale, hopes, 60) and not propose(space, stale, doubts, 60)
    assert not propose(space, [*stale, *({10 + i: 0.0} for i in range(PATIENCE - 1))], hopes, 60)
    assert not propose(space, [*stale, {5: -1.0}], hopes, 6), "as many trials as it may have"
    flat = [0.0] * 100
    assert len(searched(space, flat, hopes, 100)) == 1 + PATIENCE
    assert len(searched(space, flat, Oracle([-GAIN / 2] * 100), 100)) == 2


def test_failures_are_no_gain_and_when_all_fail_others_are_tried():
    costs = [0.0] * 40
    races = searched(space_of(40), costs, Oracle([float(index) for index in range(40)]), 40, failing=set(range(8)))
    assert any(score is not None for race in races for score in race.values())
    assert sum(map(len, searched(space_of(40), costs, Oracle(costs), 40, failing=set(range(40))))) == 40


def test_batches_explore():
    costs = [float(index) for index in range(300)]
    falling = [-index / 100 for index in range(300)]
    explored = 0
    for seed in range(20):
        races = searched(space_of(300), falling, Oracle(costs), 40, seed=seed)
        explored += sum(index > 45 for race in races[1:] for index in race)
    assert 20 <= explored <= 200


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: type(workload).__name__)
def test_features_tell_configs_and_workloads_apart(workload):
    space = candidate_space(workload, VNNI, 2)
    rows = [tuple(sorted(row.items())) for row in space.features]
    assert len(set(rows)) == len(rows)
    assert all(math.isfinite(value) for row in space.features for value in row.values())
    assert workload_features(workload) == workload_features(replace(workload))
    assert space.priors[0] == 0.0


def test_features_of_shapes_and_knobs_have_names():
    shape = workload_features(CONV)
    assert shape["in_channels"] == pytest.approx(math.log2(33)) and shape["x.code=uint8"] == 1.0
    assert workload_features(replace(CONV, weight_bits=4)) != shape
    (first, *_) = candidate_space(CONV, VNNI, 1).choices
    named = config_features(first)
    assert named["schedule=direct_conv2d"] == 1.0
    assert named["direct_conv2d.row_tile*col_tile"] == pytest.approx(
        named["direct_conv2d.row_tile"] + named["direct_conv2d.col_tile"]
    )


def rows_of(count: int, seed: int):
    chance = random.Random(seed)
    rows = [{"a": chance.uniform(0, 4), "b": chance.uniform(0, 4), "prior": chance.gauss(0, 0.3)} for _ in range(count)]
    truth = [row["prior"] + 0.3 * (row["a"] > 2) - 0.2 * (row["b"] > 1) for row in rows]
    return rows, [row["prior"] for row in rows], truth


def test_the_model_starts_from_the_estimate_and_learns_what_it_misses():
    rows, priors, truth = rows_of(300, 0)
    fresh = CostModel()
    assert list(fresh.predict(rows, priors)) == priors
    fresh.fit([], [], [])
    assert list(fresh.predict(rows, priors)) == priors

    def error(predicted, truth):
        return sum(abs(p - t) for p, t in zip(predicted, truth, strict=True)) / len(truth)

    fresh.fit(rows[:80], priors[:80], truth[:80])
    assert error(fresh.predict(rows[80:], priors[80:]), truth[80:]) < 0.3 * error(priors[80:], truth[80:])
    without = CostModel(prior=False)
    assert list(without.predict(rows[:2], priors[:2])) == [0.0, 0.0]
    without.fit(rows[:80], priors[:80], truth[:80])
    hidden = [row | {"prior": 9.0} for row in rows[80:]]
    assert list(without.predict(hidden, priors[80:])) == list(without.predict(rows[80:], [0.0] * 220))


def test_the_model_takes_rows_of_other_schedules():
    model = CostModel()
    model.fit([{"a": 1.0}, {"b": 2.0}, {"a": 3.0}], [0.0] * 3, [0.1, -0.5, 0.4])
    assert len(model.predict([{"c": 1.0}, {}], [0.0, 0.0])) == 2
