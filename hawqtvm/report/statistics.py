"""Whether times moved: ratios of head to base, their limits, and tests that hold where the machine's speed wanders.

Rounds of one session are pairs: base and head ran in turns, in shuffled order, so whatever the machine did weighed on
both.  A pair's evidence is ``d``, the logarithm of head's time over base's.  Rounds of two sessions are not: they are
compared in units of the yardstick, and what the machine wandered within each session counts as doubt.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hawqtvm.report.run import Rounds

CONFIDENCE = 0.95
LEAST_ROUNDS = 7  # fewer leave a median without limits


@dataclass(frozen=True)
class Shift:
    """Head's time over base's.

    ``ratio``: the median; ``low``, ``high``: its 95 % limits; ``wander``: the logarithm of what the machine's own
    changes may have made of it (the limits contain it); ``u``, ``p``: Mann-Whitney's, two-sided.
    """

    ratio: float
    low: float
    high: float
    wander: float
    u: float
    p: float


def paired(base: Rounds, head: Rounds) -> Shift:
    """The shift between rounds that took turns.

    Each pair divided by its own level leaves ``-d/2`` and ``d/2``, on which Mann-Whitney's U counts the pairs of rounds
    with ``d[i] + d[j] > 0``: Wilcoxon's signed rank sum twice, less its diagonal.  As these values are not independent,
    U varies more than its table allows (by the square root of 2), so p is the larger of its own and the signed rank
    test's, which the shuffled order makes exact.
    """
    from scipy.stats import wilcoxon

    d = np.array([_log_ratio(a, b) for a, b in zip(base, head, strict=True)])
    u, p = _mann_whitney(d / 2, -d / 2)
    p = max(p, float(wilcoxon(d).pvalue)) if d.any() else 1.0
    return Shift(math.exp(np.median(d)), *map(_exp, median_limits(d, CONFIDENCE)), 0.0, u, p)


def separate(base: Sequence[float], head: Sequence[float]) -> Shift:
    """The shift between the levels of rounds that did not take turns (:func:`levels`), a number a round.

    A steady drift through both sessions moves the medians apart by the sum of what it moves their halves: the wander.
    """
    base, head = np.log(base), np.log(head)
    u, p = _mann_whitney(head, base)
    each = (1 + CONFIDENCE) / 2  # both hold at once with CONFIDENCE
    (base_low, base_high), (head_low, head_high) = median_limits(base, each), median_limits(head, each)
    wander = _halves(base) + _halves(head)
    return Shift(
        math.exp(np.median(head) - np.median(base)),
        _exp(head_low - base_high - wander),
        _exp(head_high - base_low + wander),
        wander,
        u,
        p,
    )


def levels(rounds: Rounds, yardstick: Sequence[Sequence[float]]) -> np.ndarray:
    """Each round's time in units of the yardstick: the median over turns of the turn's best call."""
    return np.array(
        [
            np.median([min(calls) / unit for calls, unit in zip(turns, units, strict=True)])
            for turns, units in zip(rounds, yardstick, strict=True)
        ]
    )


def median_limits(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Limits of the median by order statistics, infinite where there are too few values for any."""
    from scipy.stats import quantile_test

    low, high = quantile_test(values, q=0, p=0.5).confidence_interval(confidence)
    return (-math.inf if np.isnan(low) else float(low)), (math.inf if np.isnan(high) else float(high))


def least_rounds(tests: int, alpha: float, interleaved: bool) -> int:
    """The rounds with which the smallest p there can be, corrected for ``tests`` of them, is below ``alpha``."""
    rounds = LEAST_ROUNDS
    while tests * 2 / (2**rounds if interleaved else math.comb(2 * rounds, rounds)) >= alpha:
        rounds += 1
    return rounds


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for being several (Holm 1979, step-down)."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


def _mann_whitney(head: np.ndarray, base: np.ndarray) -> tuple[float, float]:
    """U of ``head``, and its two-sided p: exact without ties."""
    from scipy.stats import mannwhitneyu

    values = np.concatenate([head, base])
    test = mannwhitneyu(head, base, method="exact" if len(np.unique(values)) == len(values) else "asymptotic")
    return float(test.statistic), float(test.pvalue)


def _log_ratio(base: Sequence[Sequence[float]], head: Sequence[Sequence[float]]) -> float:
    """Of one round: the median over turns, each by its best calls, since others on the machine only ever add time."""
    return float(np.median([math.log(min(after) / min(before)) for before, after in zip(base, head, strict=True)]))


def _halves(logs: np.ndarray) -> float:
    middle = len(logs) // 2
    return abs(float(np.median(logs[middle:]) - np.median(logs[:middle]))) if middle else math.inf


def _exp(value: float) -> float:
    return math.exp(value) if value < math.inf else math.inf
