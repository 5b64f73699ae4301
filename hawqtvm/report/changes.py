"""Steps and drifts in a series of times: where a history changed, not where one run was odd.

The series is cut into levels so that what is left around their medians, in absolute value, is least, each cut at
a price (optimal partitioning: Jackson et al., 2005).  A cut is a step if Mann-Whitney tells the levels on both sides
apart and their medians differ by the factor.  An odd run, or up to three of them, is too short for a level of its own.
Where one straight line leaves less than the levels do, the series drifts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 4  # runs in a level
PRICE = 4.0  # of a cut, in standard deviations of a run, times the logarithm of their number
ALPHA = 0.01


@dataclass(frozen=True)
class Change:
    """A "step", or a "drift".

    ``first``: index of the first value after the step, or where the drift begins; ``last``: of the last value it holds
    for; ``ratio``: after over before.
    """

    kind: str
    first: int
    last: int
    ratio: float


def find_changes(values: Sequence[float], factor: float) -> list[Change]:
    """The changes of a series of times by more than ``factor``, up or down, oldest first."""
    logs, least = np.log(np.asarray(values, float)), float(np.log(factor))
    if len(logs) < 2 * LEAST:
        return []
    price = PRICE * np.log(len(logs)) * _deviation(logs)
    cuts = _cuts(logs, price)
    drift = _drift(logs, _left(logs, cuts) + price * (len(cuts) - 2), price)
    if drift is not None:
        return [Change("drift", 0, len(logs) - 1, float(np.exp(drift)))] if abs(drift) > least else []
    while weak := [cut for cut in range(1, len(cuts) - 1) if not _is_step(logs, cuts[cut - 1 : cut + 2], least)]:
        cuts.pop(min(weak, key=lambda cut: abs(_moved(logs, cuts[cut - 1 : cut + 2]))))
    levels = zip(cuts, cuts[1:], cuts[2:], strict=False)
    return [Change("step", at[1], at[2] - 1, float(np.exp(_moved(logs, at)))) for at in levels]


def _deviation(logs: np.ndarray) -> float:
    """Of one value around its level, from neighbours' differences, of which steps are few."""
    from scipy.stats import norm

    return float(np.median(np.abs(np.diff(logs)))) / (norm.ppf(0.75) * np.sqrt(2)) + 1e-6


def _cuts(logs: np.ndarray, price: float) -> list[int]:
    """Bounds of the levels, 0 and the length among them."""
    count = len(logs)
    best, previous = np.full(count + 1, np.inf), np.zeros(count + 1, int)
    best[0] = -price
    for stop in range(LEAST, count + 1):
        for start in range(stop - LEAST + 1):
            cost = best[start] + price + _left(logs, [start, stop])
            if cost < best[stop]:
                best[stop], previous[stop] = cost, start
    cuts = [count]
    while cuts[-1]:
        cuts.append(int(previous[cuts[-1]]))
    return cuts[::-1]


def _left(logs: np.ndarray, cuts: Sequence[int]) -> float:
    """What levels between these cuts leave: absolute deviations from a median, its upper half less its lower."""
    left = 0.0
    for start, stop in zip(cuts, cuts[1:], strict=False):
        ordered, half = np.sort(logs[start:stop]), (stop - start) // 2
        left += ordered[stop - start - half :].sum() - ordered[:half].sum()
    return float(left)


def _drift(logs: np.ndarray, cost: float, price: float) -> float | None:
    """The logarithm of the whole change along a line that costs less than the levels do, or None."""
    from scipy.stats import theilslopes

    slope, intercept, *_ = theilslopes(logs)
    along = slope * np.arange(len(logs))
    return float(along[-1]) if np.abs(logs - along - intercept).sum() + price < cost else None


def _moved(logs: np.ndarray, cuts: Sequence[int]) -> float:
    start, cut, stop = cuts
    return float(np.median(logs[cut:stop]) - np.median(logs[start:cut]))


def _is_step(logs: np.ndarray, cuts: Sequence[int], least: float) -> bool:
    from scipy.stats import mannwhitneyu

    start, cut, stop = cuts
    p = mannwhitneyu(logs[start:cut], logs[cut:stop]).pvalue
    return bool(p < ALPHA) and abs(_moved(logs, cuts)) > least
