"""Searches replayed on a layer of which every config was measured."""

import math
import random
import statistics
from collections.abc import Callable

from hawqtvm.tune.candidates import Race, Space
from hawqtvm.tune.cost_model import CostModel
from hawqtvm.tune.search import propose


def at_random(space: Space, scores: Race, seed: int) -> list[int]:
    """The default, then all others in any order."""
    others = list(range(1, len(space.choices)))
    return [0, *random.Random(seed).sample(others, len(others))]


def by_estimate(space: Space, scores: Race, seed: int) -> list[int]:
    """The default, then all others by the schedule's own estimate."""
    return [0, *sorted(range(1, len(space.choices)), key=space.priors.__getitem__)]


def by_model(prior: bool) -> Callable[[Space, Race, int], list[int]]:
    """As ``hawqtvm.tune`` searches, on this layer alone, until it stops by itself."""

    def searched(space: Space, scores: Race, seed: int) -> list[int]:
        races: list[Race] = []
        model = CostModel(prior)
        while batch := propose(space, races, model, len(space.choices), seed):
            races.append({index: scores[index] for index in batch})
            model.fit(*space.examples(races))
        return [index for race in races for index in race]

    return searched


STRATEGIES = {
    "random": at_random,
    "estimate": by_estimate,
    "model without estimate": by_model(False),
    "model": by_model(True),
}


def curves(space: Space, scores: Race, seeds: int) -> dict[str, dict]:
    """For each search, over ``seeds`` runs, the best time found after 1, 2, ... trials over the best of all configs.

    ``mean``, ``low`` and ``high``: the mean and the least and greatest of the runs; ``trials``: made on average.
    """
    best = min(score for score in scores.values() if score is not None)
    length = len(space.choices)
    result = {}
    for name, search in STRATEGIES.items():
        orders = [search(space, scores, seed) for seed in range(seeds)]
        columns = list(zip(*(_best_found(order, scores, best, length) for order in orders), strict=True))
        result[name] = {
            "mean": [round(statistics.fmean(column), 4) for column in columns],
            "low": [round(min(column), 4) for column in columns],
            "high": [round(max(column), 4) for column in columns],
            "trials": statistics.fmean(map(len, orders)),
        }
    return result


def _best_found(order: list[int], scores: Race, best: float, length: int) -> list[float]:
    """The ratio after each trial; after the last it stays.  Until something runs it is the default's, or the worst."""
    worst = max(score for score in scores.values() if score is not None)
    found, curve = worst, []
    for index in order:
        score = scores[index]
        found = found if score is None else min(found, score)
        curve.append(math.exp(found - best))
    return curve + curve[-1:] * (length - len(curve))
