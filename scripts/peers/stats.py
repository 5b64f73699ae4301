"""Statistics of timings: plain lists of milliseconds in, plain numbers out."""

import statistics
from collections.abc import Sequence


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Minimum, median and interquartile range (inclusive method) of at least one sample, in its unit."""
    if len(samples) == 1:
        return {"min": samples[0], "median": samples[0], "iqr": 0.0, "count": 1}
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return {"min": min(samples), "median": middle, "iqr": high - low, "count": len(samples)}


def ratio_by_round(rounds: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]) -> float | None:
    """How many times longer than the baseline: the median over rounds of the ratio of the rounds' medians.

    Rounds lie close in time, so a load on the machine that comes and goes weighs on both sides of each ratio.

    Args:
        rounds, baseline: one list of samples for each round; None is the answer if they have no round in common.
    """
    ratios = [
        statistics.median(ours) / statistics.median(theirs)
        for ours, theirs in zip(rounds, baseline, strict=False)
        if ours and theirs
    ]
    return statistics.median(ratios) if ratios else None
