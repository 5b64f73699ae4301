"""The frontier: plans of which none is better in both sensitivity and one of size, BOPS, latency."""

from collections.abc import Mapping

from hawqtvm.allocate import Allocation, infeasible, rows
from hawqtvm.allocate.problem import SENSITIVITY, Problem
from hawqtvm.allocate.solver import EQUAL, SECONDS, minimize
from hawqtvm.console import Progress

POINTS = 50


def pareto(
    problem: Problem,
    over: str,
    limits: Mapping[str, float],
    points: int | None = POINTS,
    seconds: float = SECONDS,
) -> list[Allocation]:
    """Points of the frontier of sensitivity and the quantity ``over``, the least sensitive first, both ends among them.

    ``limits``: absolute ones that every point meets besides.  ``points``: at most so many, their ``over`` as evenly
    spaced as the frontier allows; None for all that differ by more than a few millionths of the span.  Each is
    exact: the least sensitivity that so much ``over`` allows, then the least ``over`` with that (epsilon
    constraints).
    Raises BadInput where no plan meets the limits.
    """
    cost, sensitivity = problem.quantities[over], problem.quantities[SENSITIVITY]
    held = rows(problem, limits)
    apart = 4 * EQUAL * cost.span
    last = minimize(problem, cost, held, seconds)
    if last is None:
        raise infeasible(problem, dict(limits), seconds)
    least = cost.at(last.bits)
    found: list[Allocation] = []
    bound, step = [], 0.0
    with Progress("frontier points", points) as progress:
        while True:
            best = minimize(problem, sensitivity, [*held, *bound], seconds)
            cheapest = minimize(problem, cost, [*held, (sensitivity, sensitivity.at(best.bits))], seconds)
            found.append(Allocation(problem, cheapest.bits, dict(limits), max(best.gap, cheapest.gap)))
            progress()
            reached = cost.at(cheapest.bits)
            if reached <= least + apart:
                return found
            if not bound and points:
                step = (reached - least) / max(points - 1, 1)
                start = reached
            grid = start - len(found) * step if step else reached
            bound = [(cost, max(least, min(reached - apart, grid)))]
