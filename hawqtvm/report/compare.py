"""Base against head: what got slower, what did not, and what the noise does not let us tell."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hawqtvm.errors import BadInput
from hawqtvm.report.matching import matched
from hawqtvm.report.run import Rounds, Run
from hawqtvm.report.statistics import Shift, holm, least_rounds, levels, paired, separate

REGRESSION, INCONCLUSIVE, IMPROVEMENT, PASS = "regression", "inconclusive", "improvement", "pass"
UNCONFIRMED = "slower, which a second measurement did not confirm"
EXIT_CODES = {PASS: 0, IMPROVEMENT: 0, REGRESSION: 1, INCONCLUSIVE: 3}
ALPHA = 0.05  # of a false alarm among the networks, and among the layers, before the factors and the confirmation
NETWORK_FACTOR, LAYER_FACTOR = 1.03, 1.10
UNTOLD_SHARE = 0.1  # of a network's time, in layers that cannot be told, leaves the whole untold

Again = Callable[[], tuple[Run, Run] | None]


@dataclass(frozen=True)
class Factors:
    """How many times longer is a regression."""

    network: float = NETWORK_FACTOR
    layer: float = LAYER_FACTOR

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 1 < value < math.inf:
                raise BadInput(f"{name} factor {value!r}: give a number above 1, such as 1.05 for 5 % slower")


@dataclass(frozen=True)
class Row:
    """A network (``layer`` None) or a layer of it.

    ``base_us``, ``head_us``: medians over rounds; ``p``: after Holm's correction; ``reason``: why it is inconclusive.
    """

    network: str
    layer: str | None
    base_us: float
    head_us: float
    shift: Shift
    p: float
    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """``rows``: each network, then its layers; ``remeasured``: whether a second measurement was made."""

    base: Run
    head: Run
    factors: Factors
    rows: tuple[Row, ...]
    remeasured: bool
    verdict: str

    @property
    def interleaved(self) -> bool:
        return self.base.session == self.head.session

    def of(self, network: str) -> tuple[Row, list[Row]]:
        """A network's own row and its layers'."""
        whole, *layers = (row for row in self.rows if row.network == network)
        return whole, layers


def compare(base: Run, head: Run, factors: Factors = Factors(), again: Again = lambda: None) -> Comparison:
    """Judges every network and every layer that base and head share.

    A regression: significant after Holm's correction, the median beyond its factor, and both again in what ``again``
    measures (None: nothing can be; then it stays inconclusive).  What was inconclusive at first is judged by both
    measurements together.  A pass: the ratio's upper limit is within the factor.  BadInput when the two cannot be
    compared, or have too few rounds to tell anything.
    """
    check_comparable(base, head, min(len(base.load), len(head.load)))
    first = judged(base, head, factors)
    if all(row.verdict in (PASS, IMPROVEMENT) for row in first) or (fresh := again()) is None:
        rows = [unconfirmed(row) if row.verdict == REGRESSION else row for row in first]
        return Comparison(base, head, factors, tuple(rows), False, overall(rows))
    suspects = {(row.network, row.layer) for row in first if row.verdict == REGRESSION}
    second = {(row.network, row.layer): row for row in judged(*fresh, factors, suspects)}
    base, head = (base.more(fresh[0]), head.more(fresh[1])) if base.session == head.session else fresh
    rows = [settled(second.get((row.network, row.layer)), row) for row in judged(base, head, factors)]
    return Comparison(base, head, factors, tuple(rows), True, overall(rows))


def settled(second: Row | None, both: Row) -> Row:
    """The row after a second measurement: no regression that only one of the two shows."""
    if second is not None and second.verdict == REGRESSION:
        return replace(both, verdict=REGRESSION, reason="")
    return unconfirmed(both) if both.verdict == REGRESSION else both


def unconfirmed(row: Row) -> Row:
    return replace(row, verdict=INCONCLUSIVE, reason=UNCONFIRMED)


def overall(rows: Sequence[Row]) -> str:
    """The worst verdict; layers that noise hides count where they hold more than ``UNTOLD_SHARE`` of the time."""
    verdicts = {row.verdict for row in rows}
    if REGRESSION in verdicts:
        return REGRESSION
    untold = [row for row in rows if row.verdict == INCONCLUSIVE]
    if any(row.layer is None or row.reason == UNCONFIRMED for row in untold):
        return INCONCLUSIVE
    for network in {row.network for row in untold}:
        layers = [row for row in rows if row.network == network and row.layer is not None]
        hidden = sum(row.head_us for row in layers if row.verdict == INCONCLUSIVE)
        if hidden > UNTOLD_SHARE * sum(row.head_us for row in layers):
            return INCONCLUSIVE
    return IMPROVEMENT if any(row.layer is None and row.verdict == IMPROVEMENT for row in rows) else PASS


def judged(base: Run, head: Run, factors: Factors, wanted: set[tuple[str, str | None]] | None = None) -> list[Row]:
    """A row for each network and layer, or only those wanted, judged by this measurement alone."""
    found = []
    for mine, theirs in matched(base, head):
        befores, afters = mine.series, theirs.series
        for layer in (name for name in afters if name in befores):
            if wanted is not None and (theirs.name, layer) not in wanted:
                continue
            before, after = befores[layer], afters[layer]
            if base.session == head.session:
                shift = paired(before, after)
            else:
                shift = separate(_levels(before, base), _levels(after, head))
            found.append(Row(theirs.name, layer, median_us(before), median_us(after), shift, 1.0, INCONCLUSIVE))
    p = _corrected(found)
    return [_verdict(row, p[row], factors) for row in found]


def _corrected(rows: Sequence[Row]) -> dict[Row, float]:
    """p after Holm's correction over the networks, and over their layers: having many does not hide the whole."""
    families = [row for row in rows if row.layer is None], [row for row in rows if row.layer is not None]
    return {row: p for family in families for row, p in zip(family, holm([row.shift.p for row in family]), strict=True)}


def _verdict(row: Row, p: float, factors: Factors) -> Row:
    """The row with its corrected p and what follows from it."""
    factor = factors.network if row.layer is None else factors.layer
    shift, moved, reason = row.shift, math.log(row.shift.ratio), ""
    if p < ALPHA and moved - shift.wander > math.log(factor):
        verdict = REGRESSION
    elif shift.high > factor:
        verdict = INCONCLUSIVE
        reason = f"noise: it may be {shift.high:.3g} times as slow, more than {factor:g}"
    else:
        verdict = IMPROVEMENT if p < ALPHA and moved + shift.wander < -math.log(factor) else PASS
    return replace(row, p=p, verdict=verdict, reason=reason)


def median_us(rounds: Rounds) -> float:
    """The median over rounds of the median turn's best call."""
    return float(np.median([np.median([min(calls) for calls in turns]) for turns in rounds]))


def check_comparable(base: Run, head: Run, rounds: int) -> None:
    """BadInput when the two cannot be compared, or that many rounds cannot tell anything."""
    pairs = matched(base, head)
    layers = sum(layer in mine.series for mine, theirs in pairs for layer in theirs.series if layer is not None)
    tests = max(layers, len(pairs))
    needed = least_rounds(tests, ALPHA, base.session == head.session)
    if rounds < needed:
        raise BadInput(f"{rounds} rounds cannot tell anything of {tests} times at once: measure with --rounds {needed}")


def _levels(rounds: Rounds, run: Run) -> np.ndarray:
    return levels(rounds, [load.yardstick_us for load in run.load])
