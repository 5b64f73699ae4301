"""Which candidates to measure next: the default and the best estimates first, then what the cost model ranks best."""

import random
from collections.abc import Sequence
from typing import Protocol

from hawqtvm.tune.candidates import Race, Space, merged

BATCH = 8
UNTRIED = 2  # random ones of the first batch
EXPLORED = 0.25  # share of random ones where there is no second batch
EPSILON = 0.15  # share of random ones in later batches
GAIN = 0.01  # log ratio: less is no improvement
PATIENCE = 2  # races without improvement


class Ranker(Protocol):
    """What :class:`~hawqtvm.tune.cost_model.CostModel` offers a search."""

    def predict(self, rows: list[dict[str, float]], priors: list[float]) -> Sequence[float]: ...


def without_measurements(space: Space, most: int, seed: int = 0) -> list[int]:
    """Indices of at most ``most`` choices to measure where nothing can be learned in between.

    Every schedule's default, the best by the schedules' own estimates, and a share ``EXPLORED`` at random.
    """
    chance, count = random.Random(seed), min(most, len(space.choices))
    ranked = sorted(chance.sample(range(len(space.choices)), len(space.choices)), key=space.priors.__getitem__)
    return _first(space, ranked, count, round(EXPLORED * count), chance)


def propose(space: Space, races: list[Race], model: Ranker, trials: int, seed: int = 0) -> list[int]:
    """Indices of the choices to race next; none when the search is over.

    ``races``: what was measured so far, {choice: log of its time over the first choice's, None where it failed}, in
    order.  The search ends with ``trials`` choices measured, when nothing is left, after ``PATIENCE`` races that found
    nothing better by ``GAIN``, or after one such when the model expects no better either.  An interrupted search goes
    on as if it had not been, since the answer depends on nothing else.
    """
    scores = merged(races)
    left = [index for index in range(len(space.choices)) if index not in scores]
    count = min(BATCH, trials - len(scores), len(left))
    if count < 1:
        return []
    chance = random.Random(f"{seed} {len(scores)}")
    predicted = model.predict([space.features[i] for i in left], [space.priors[i] for i in left])
    cost = dict(zip(left, map(float, predicted), strict=True))
    ranked = sorted(chance.sample(left, len(left)), key=cost.__getitem__)
    if not any(score is not None for score in scores.values()):
        return _first(space, ranked, count, UNTRIED, chance)
    stale = _stale(races)
    best = min(score for score in scores.values() if score is not None)
    if stale >= PATIENCE or (stale and cost[ranked[0]] > best - GAIN):
        return []
    explored = sum(chance.random() < EPSILON for _ in range(count))
    return _with_random(ranked, count, explored, chance)


def _first(space: Space, ranked: list[int], count: int, explored: int, chance: random.Random) -> list[int]:
    """Every schedule's default, then the best predicted, then ``explored`` random ones."""
    wanted = [index for index in ranked if index < space.defaults]
    wanted = sorted(wanted) + [index for index in ranked if index >= space.defaults]
    return _with_random(wanted, count, min(explored, max(0, count - space.defaults)), chance)


def _with_random(ranked: list[int], count: int, explored: int, chance: random.Random) -> list[int]:
    certain, rest = ranked[: count - explored], ranked[count - explored :]
    return certain + chance.sample(rest, min(explored, len(rest)))


def _stale(races: list[Race]) -> int:
    """How many of the last races found nothing better by ``GAIN`` than what those before had found."""
    stale, best = 0, None
    for race in races:
        found = min((score for score in race.values() if score is not None), default=None)
        if found is not None and (best is None or found < best - GAIN):
            stale, best = 0, found
        else:
            stale += 1
    return stale
