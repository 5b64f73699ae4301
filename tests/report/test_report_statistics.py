"""The tests behind a verdict, against scipy, enumerations and definitions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, mannwhitneyu, permutation_test, rankdata, wilcoxon

from hawqtvm.report.statistics import holm, least_rounds, levels, median_limits, paired, separate

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=6)
shifts = st.lists(st.integers(-500, 500).filter(bool), min_size=7, max_size=20, unique_by=abs)


def as_rounds(us):
    """Each value as a round of one turn and one call."""
    return tuple(((float(value),),) for value in us)


def test_the_best_calls_of_turns_are_compared_turn_by_turn():
    slow_turn = 5.0  # the same disturbance on both sides
    base = (((100.0, 300.0), (100.0 * slow_turn, 500.0), (101.0, 200.0)),) * 7
    head = (((150.0, 110.0), (110.0 * slow_turn, 990.0), (400.0, 111.1)),) * 7
    shift = paired(base, head)
    assert shift.ratio == pytest.approx(1.1) and shift.low == pytest.approx(1.1) and shift.wander == 0
    assert levels(base, [[10.0, 50.0, 10.1]] * 7) == pytest.approx([10.0] * 7)


@given(shifts)
@settings(deadline=None, max_examples=40)
def test_paired_counts_the_pairs_of_rounds_that_are_slower(d):
    logs = np.array(d) / 1000
    shift = paired(as_rounds(np.ones(len(d))), as_rounds(np.exp(logs)))
    sums = np.add.outer(d, d)
    assert shift.u == (sums > 0).sum() + 0.5 * (sums == 0).sum()
    ranks = rankdata(np.abs(d))
    positive = ranks[np.array(d) > 0]
    if not (sums[~np.eye(len(d), dtype=bool)] == 0).any():
        assert shift.u == 2 * positive.sum() - len(positive)
    assert shift.p >= wilcoxon(logs).pvalue - 1e-12 and 0 < shift.p <= 1
    assert shift.ratio == pytest.approx(math.exp(np.median(logs)))


def test_swapping_sides_within_rounds_is_seldom_significant():
    """Over all ways to swap, p <= 0.05 in at most 5 % of them; Mann-Whitney's own table would promise too much."""
    sizes = np.array([1.0, 2.2, 3.1, 4.7, 5.3, 6.9, 7.4]) / 100
    ours = theirs = 0
    for signs in itertools.product((-1, 1), repeat=len(sizes)):
        d = sizes * signs
        ours += paired(as_rounds(np.ones(len(d))), as_rounds(np.exp(d))).p <= 0.05
        theirs += mannwhitneyu(d / 2, -d / 2).pvalue <= 0.05
    assert ours <= 0.05 * 2 ** len(sizes) < theirs


def test_equal_rounds_are_no_evidence():
    same = as_rounds([5.0] * 9)
    assert paired(same, same).p == 1 and paired(same, same).ratio == 1


@given(st.lists(st.floats(0.5, 2), min_size=10, max_size=10, unique=True))
@settings(max_examples=15, deadline=None)
def test_separate_has_the_p_of_all_permutations(values):
    base, head = np.array(values[:5]), np.array(values[5:])

    def u(x, y):
        return (np.greater.outer(x, y) + 0.5 * np.equal.outer(x, y)).sum()

    expected = permutation_test((head, base), u, n_resamples=np.inf)
    shift = separate(base, head)
    assert shift.u == u(head, base)
    assert shift.p == pytest.approx(expected.pvalue)


def test_a_steady_drift_is_all_wander():
    drift = np.exp(np.linspace(0, 0.4, 40))
    shift = separate(drift[:20], drift[20:])
    assert math.log(shift.ratio) == pytest.approx(shift.wander)
    assert shift.p < 1e-6 and shift.low < 1
    still = separate(np.ones(20), np.full(20, 1.2))
    assert still.wander == 0 and still.low == pytest.approx(1.2)


@given(st.lists(st.integers(-(10**6), 10**6), min_size=7, max_size=40, unique=True), st.sampled_from([0.95, 0.975]))
@settings(deadline=None, max_examples=40)
def test_limits_of_the_median_are_order_statistics(values, confidence):
    low, high = median_limits(np.array(values, float), confidence)
    ordered = sorted(values)
    # the most k with P(fewer than k + 1 values below the median) no more than what one side may miss
    k = max(k for k in range(len(values)) if binom.cdf(k, len(values), 0.5) <= (1 - confidence) / 2)
    assert (low, high) == (ordered[k], ordered[-1 - k])


def test_too_few_values_have_no_limits():
    assert median_limits(np.arange(5.0), 0.95) == (-math.inf, math.inf)


@given(probabilities)
@settings(deadline=None, max_examples=40)
def test_holm_is_closed_testing_by_bonferroni(p):
    """Marcus, Peritz and Gabriel (1976): the largest Bonferroni p of all intersections that contain the hypothesis."""
    subsets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), size)]
    for index, adjusted in enumerate(holm(p)):
        closed = max(min(1.0, len(s) * min(p[i] for i in s)) for s in subsets if index in s)
        assert adjusted == pytest.approx(closed)


@pytest.mark.parametrize(
    ("tests", "interleaved", "rounds"), [(1, True, 7), (24, True, 10), (24, False, 7), (400, True, 14)]
)
def test_the_least_rounds_can_just_be_significant(tests, interleaved, rounds):
    assert least_rounds(tests, 0.05, interleaved) == rounds
    head = as_rounds(np.linspace(2, 3, rounds))
    p = (
        paired(as_rounds(np.ones(rounds)), head).p
        if interleaved
        else separate(np.linspace(1, 1.5, rounds), np.linspace(2, 3, rounds)).p
    )
    assert tests * p < 0.05
