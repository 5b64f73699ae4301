"""Searches replayed on recorded times."""

import json
import math
import random

import pytest

from hawqtvm.tune.candidates import candidate_space
from scripts.search.__main__ import LAYERS, show
from scripts.search.plot import plot
from scripts.search.replay import STRATEGIES, curves
from tests.tune.records import CONV, VNNI


@pytest.mark.parametrize("name", LAYERS)
def test_the_layers_have_spaces_worth_searching(name):
    workload, threads = LAYERS[name]
    assert len(candidate_space(workload, VNNI, threads).choices) > 15


def test_curves_fall_to_the_best_and_end_there_for_those_that_try_all(tmp_path):
    space = candidate_space(CONV, VNNI, 1)
    chance = random.Random(0)
    scores = {index: prior + chance.gauss(0, 0.1) for index, prior in enumerate(space.priors)}
    scores |= {0: 0.3, 5: None}
    found = {"layer": {"configs": len(space.choices), **curves(space, scores, 4)}}
    best = min(score for score in scores.values() if score is not None)
    for strategy in STRATEGIES:
        curve = found["layer"][strategy]
        assert len(curve["mean"]) == len(space.choices)
        assert curve["mean"][0] == pytest.approx(math.exp(0.3 - best), abs=1e-4)
        for low, mean, high in zip(curve["low"], curve["mean"], curve["high"], strict=True):
            assert 1.0 <= low <= mean <= high
        assert all(later <= earlier for earlier, later in zip(curve["mean"], curve["mean"][1:], strict=False))
    for strategy in ("random", "estimate"):
        assert found["layer"][strategy]["mean"][-1] == 1.0
        assert found["layer"][strategy]["trials"] == len(space.choices)
    assert found["layer"]["model"]["trials"] < len(space.choices)
    assert json.loads(json.dumps(found)) == found
    assert len(show(found).splitlines()) == 2 + len(STRATEGIES)


def test_the_picture_is_drawn(tmp_path):
    layer = dict.fromkeys(STRATEGIES, {"mean": [1.5, 1.0], "low": [1.2, 1.0], "high": [1.9, 1.0], "trials": 2})
    plot({"a": {"configs": 2, **layer}, "b": {"configs": 2, **layer}}, tmp_path / "search.svg")
    assert "trials" in (tmp_path / "search.svg").read_text() or (tmp_path / "search.svg").stat().st_size > 1000
