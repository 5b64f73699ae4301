"""Why a layer got its bits: what they cost and gain, how it ranks, and what would flip it."""

from dataclasses import asdict, dataclass

from hawqtvm.allocate import Allocation, rows
from hawqtvm.allocate.limits import SHOWN, UNITS, shown, shown_feasible
from hawqtvm.allocate.problem import SENSITIVITY, Problem
from hawqtvm.allocate.solver import EQUAL, SECONDS, minimize, optimum
from hawqtvm.errors import BadInput


@dataclass(frozen=True)
class Trade:
    """What 4 bits instead of 8 gain of a limited quantity, the rest of the plan as it is.

    ``gain``: in bytes, operations or microseconds.  ``price``: sensitivity for each of them; None where nothing is
    gained.  ``rank`` of that price among ``of`` free groups, 1 the lowest.  ``flips_at``: the nearest limit, others as
    they are, at which (a layer at 4 bits) or just below which (at 8) the best plan has the layer the other way; None
    where none has.
    """

    gain: float
    price: float | None
    rank: int
    of: int
    flips_at: float | None


@dataclass(frozen=True)
class Explanation:
    """``layers``: those that share these bits.  ``cost``: sensitivity that 4 bits add, the rest of the plan as it is.

    ``flips_beyond``: the ``cost`` at which another plan is as good, above it for a layer at 4 bits, below for one at 8;
    None where no cost does it.  ``trades``: one a limit.
    """

    layers: tuple[str, ...]
    bits: int
    cost: float
    flips_beyond: float | None
    trades: dict[str, Trade]

    def to_json(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        one = len(self.layers) == 1
        name, it, have = ", ".join(self.layers), "it" if one else "they", "has" if one else "have"
        lines = [f"{name} {have} {self.bits} bits: 4 instead of 8 add {self.cost:.6g} of sensitivity."]
        for quantity, trade in self.trades.items():
            unit = SHOWN[quantity]
            if trade.price is None:
                lines.append(f"{quantity}: 4 bits gain nothing (they add {shown(quantity, -trade.gain)}).")
            else:
                price = f"{trade.price * UNITS[quantity][unit]:.6g} a {unit}"
                lines.append(
                    f"{quantity}: 4 bits gain {shown(quantity, trade.gain)}, at a sensitivity of {price}: number "
                    f"{trade.rank} of {trade.of} by price, the lowest first."
                )
            if trade.flips_at is None:
                lines.append(f"  No {'looser' if self.bits == 4 else 'tighter'} limit on {quantity} flips {it}.")
            elif self.bits == 4:
                lines.append(f"  Flips to 8 bits first at --{quantity} {shown_feasible(quantity, trade.flips_at)}.")
            else:
                lines.append(f"  Flips to 4 bits first below --{quantity} {shown(quantity, trade.flips_at)}.")
        if self.flips_beyond is None:
            lines.append(f"No sensitivity of {'its' if one else 'their'} own flips {it} under these limits.")
        else:
            way = "to 8 bits were the added sensitivity above" if self.bits == 4 else "to 4 bits were it below"
            lines.append(f"Flips {way} {self.flips_beyond:.6g}.")
        return "\n".join(lines)


def explain(allocation: Allocation, layer: str, seconds: float = SECONDS) -> Explanation:
    """Why ``layer`` has its bits in the allocation; BadInput for a layer that is unknown, or settled beforehand."""
    problem, bits = allocation.problem, allocation.bits
    problem.check_known(layer)
    if layer in problem.fixed:
        raise BadInput(
            f"layer {layer} was given its {bits[layer]} bits beforehand (by --fix, or as one of the first and last "
            "layers): there is nothing to explain"
        )
    sensitivity = problem.quantities[SENSITIVITY]
    first = problem.leader[layer]
    costs = {a: -_gain(allocation, SENSITIVITY, a) for a in problem.groups}
    turned = optimum(problem.fix({layer: 12 - bits[layer]}), rows(problem, allocation.limits), seconds)
    flips_beyond = None
    if turned is not None:
        regret = sensitivity.at(turned.bits) - sensitivity.at(bits)
        flips_beyond = costs[first] + (regret if bits[layer] == 4 else -regret)
        if flips_beyond < 0:
            flips_beyond = None
    trades = {}
    for name in allocation.limits:
        gains = {a: _gain(allocation, name, a) for a in problem.groups}
        prices = {a: costs[a] / gains[a] for a in gains if gains[a] > 0}
        rank = 1 + sum(price < prices[first] for price in prices.values()) if first in prices else len(gains)
        flips_at = (_loosened if bits[layer] == 4 else _tightened)(allocation, layer, name, seconds)
        trades[name] = Trade(gains[first], prices.get(first), rank, len(gains), flips_at)
    return Explanation(problem.groups[first], bits[layer], costs[first], flips_beyond, trades)


def _gain(allocation: Allocation, name: str, first: str) -> float:
    """By how much 4 bits of a group lower a quantity, the rest of the plan as it is."""
    quantity, bits = allocation.problem.quantities[name], allocation.bits
    change = quantity.at(bits) - quantity.at(allocation.problem.flipped(bits, first))
    return change if bits[first] == 8 else -change


def _least(problem: Problem, name: str, limits: dict[str, float], sensitivity: float, seconds: float) -> float | None:
    """The least of a quantity with a sensitivity of at most so much, the other limits holding."""
    others = rows(problem, {n: limit for n, limit in limits.items() if n != name})
    bound = (problem.quantities[SENSITIVITY], sensitivity)
    found = minimize(problem, problem.quantities[name], [*others, bound], seconds)
    return found and problem.quantities[name].at(found.bits)


def _loosened(allocation: Allocation, layer: str, name: str, seconds: float) -> float | None:
    """The least limit under which the best plan has the layer at 8 bits instead of 4.

    Up to the least cost of 8 bits at the sensitivity of 4, it has not; there, what is best by then sets a new mark.
    """
    problem, sensitivity = allocation.problem, allocation.problem.quantities[SENSITIVITY]
    turned = problem.fix({layer: 8})
    mark = allocation.predicted[SENSITIVITY]
    while (limit := _least(turned, name, allocation.limits, mark, seconds)) is not None:
        best = optimum(problem, rows(problem, allocation.limits | {name: limit}), seconds)
        if best.bits[layer] == 8:
            return limit
        mark = min(mark - 2 * EQUAL * sensitivity.span, sensitivity.at(best.bits))
    return None


def _tightened(allocation: Allocation, layer: str, name: str, seconds: float) -> float | None:
    """The greatest limit below which the best plan has the layer at 4 bits: the mirror of :func:`_loosened`."""
    problem, sensitivity = allocation.problem, allocation.problem.quantities[SENSITIVITY]
    as_is, turned = (problem.fix({layer: bits}) for bits in (8, 4))
    limits, mark = allocation.limits, float("-inf")
    while (found := minimize(turned, sensitivity, rows(problem, limits), seconds)) is not None:
        mark = max(mark + 2 * EQUAL * sensitivity.span, sensitivity.at(found.bits))
        limit = _least(as_is, name, allocation.limits, mark, seconds)
        limits = allocation.limits | {name: limit - 4 * EQUAL * problem.quantities[name].span}
        best = optimum(problem, rows(problem, limits), seconds)
        if best is None or best.bits[layer] == 4:
            return best and limit
    return None
