"""Stage: picks each layer's bits, by an integer linear program over sensitivity and what the layers cost."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import hawqtvm
from hawqtvm.allocate.limits import absolute, in_unit, shown, shown_feasible
from hawqtvm.allocate.problem import LIMITED, SENSITIVITY, Problem
from hawqtvm.allocate.solver import SECONDS, Limits, minimize, optimum
from hawqtvm.errors import BadInput
from hawqtvm.plan import Plan


@dataclass(frozen=True)
class Allocation:
    """The best plan under some limits.

    ``bits``: {layer: 4 or 8}.  ``limits``: as absolute values, in bytes, operations and microseconds.  ``gap``: how
    much less the least sensitivity may be; 0 where the plan is proved optimal.
    """

    problem: Problem
    bits: dict[str, int]
    limits: dict[str, float]
    gap: float

    @property
    def predicted(self) -> dict[str, float]:
        """The plan's sensitivity, size (bytes), BOPS and latency (microseconds), of what is known."""
        return {name: quantity.at(self.bits) for name, quantity in self.problem.quantities.items()}

    def to_json(self) -> dict:
        """Limits, prediction and proof, each quantity in the unit its name says."""

        def units(values: Mapping[str, float]) -> dict[str, float]:
            return {UNIT_NAMES[name]: in_unit(name, values[name]) for name in LIMITED if name in values}

        predicted = self.predicted
        return {
            "limits": units(self.limits),
            "predicted": {SENSITIVITY: predicted[SENSITIVITY]} | units(predicted),
            "optimal": self.gap == 0,
            "gap": self.gap if self.gap < float("inf") else None,
        }

    def plan(self, name: str) -> Plan:
        """The plan with its provenance."""
        made = {"hawqtvm": hawqtvm.__version__, "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        provenance = made | self.problem.provenance | self.to_json()
        return Plan(self.bits, name, self.problem.model, self.problem.checkpoint, provenance)


ROUNDING = 1e-12
UNIT_NAMES = {"size": "size_mb", "bops": "bops_g", "latency": "latency_ms"}


def allocate(
    problem: Problem,
    *,
    size: str | float | None = None,
    bops: str | float | None = None,
    latency: str | float | None = None,
    fix: Mapping[str, int] | None = None,
    seconds: float = SECONDS,
) -> Allocation:
    """The plan of the least sensitivity under every limit given, each a fraction or a value with its unit.

    A limit is a fraction r (0.5), which stands for ``all4 + r (all8 - all4)``, or "8MB", "100G", "4.2ms".  ``fix``:
    {layer: 4 or 8}.  ``seconds``: after so long CBC stops, and the plan's ``gap`` says how far off it may be.
    Of equally sensitive plans (to a millionth of the span) the one with the fewest 4-bit layers, those the latest in
    the network.  Raises BadInput (a limit that makes no sense, or that none can meet: then with the nearest that can)
    and CheckFailed (CBC found no plan in time).
    """
    limits = resolve(problem, {"size": size, "bops": bops, "latency": latency})
    return solve(problem.fix(fix or {}), limits, seconds)


def resolve(problem: Problem, limits: Mapping[str, str | float | None]) -> dict[str, float]:
    """Limits as absolute values; those that are None left out."""
    return {name: absolute(problem, name, limit) for name, limit in limits.items() if limit is not None}


def rows(problem: Problem, limits: Mapping[str, float]) -> Limits:
    """The limits as the solver takes them; what rounding adds to a sum breaks none."""
    return [(problem.quantities[name], limit * (1 + ROUNDING)) for name, limit in limits.items()]


def solve(problem: Problem, limits: dict[str, float], seconds: float = SECONDS) -> Allocation:
    """:func:`allocate` with absolute limits; BadInput with the nearest feasible values when there is no plan."""
    found = optimum(problem, rows(problem, limits), seconds)
    if found is None:
        raise infeasible(problem, limits, seconds)
    return Allocation(problem, found.bits, limits, found.gap)


def infeasible(problem: Problem, limits: dict[str, float], seconds: float) -> BadInput:
    """Why no plan meets the limits: the one that none meets alone, or what each could be while the others hold."""

    def least(name: str, others: dict[str, float]) -> float | None:
        found = minimize(problem, problem.quantities[name], rows(problem, others), seconds)
        return found and problem.quantities[name].at(found.bits)

    for name, limit in limits.items():
        value = least(name, {})
        if value > limit * (1 + ROUNDING):
            return BadInput(
                f"no plan meets --{name} {shown(name, limit)}; the nearest that one does is "
                f"--{name} {shown_feasible(name, value)}"
            )
    nearest = {name: least(name, {n: v for n, v in limits.items() if n != name}) for name in limits}
    choices = [f"--{name} {shown_feasible(name, value)}" for name, value in nearest.items() if value is not None]
    given = ", ".join(f"--{name} {shown(name, limit)}" for name, limit in limits.items())
    remedy = f"with the others as they are, one does {' or '.join(choices)}" if choices else "loosen two of them"
    return BadInput(f"no plan meets {given} together; {remedy}")
