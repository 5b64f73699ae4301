"""Times programs beside one another on a machine whose speed changes: rounds in which each takes its turn."""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hawqtvm.console import Progress
from hawqtvm.runtime.model import Model

TURNS = 3  # of whole calls and of calls layer by layer, in turn
CALLS = 2  # a turn
SEED = 0


@dataclass(frozen=True)
class Times:
    """Microseconds of each program, of a call and {kernel's layer: of its kernel}, a value a round."""

    calls: list[list[float]]
    kernels: list[dict[str, list[float]]]
    references: int  # the programs, from the first on, whose common pace is a round's

    @cached_property
    def pace(self) -> np.ndarray:
        """How much slower than usual each round was."""
        total = np.sum(self.calls[: self.references], axis=0)
        return total / np.median(total)

    def call(self, index: int) -> float:
        """Median over the rounds, at the usual pace."""
        return float(np.median(self.calls[index] / self.pace))

    def layers(self, index: int) -> dict[str, float]:
        """As :meth:`call`, of each kernel; they add up to the call, in whose time each has a like share of overhead.

        Two callbacks around a kernel cost it some time, which the call does not have, and the call has some of its own
        for every kernel: the difference is spread evenly.
        """
        kernels = self.kernels[index]
        overhead = (np.array(self.calls[index]) - np.sum(list(kernels.values()), axis=0)) / len(kernels)
        return {name: float(np.median((times + overhead) / self.pace)) for name, times in kernels.items()}


def measure(models: Sequence[Model], rounds: int, references: int) -> Times:
    """Every program in every round, in an order that changes from round to round."""
    calls, kernels = [[] for _ in models], [{} for _ in models]
    order, turns = list(range(len(models))), random.Random(SEED)
    with Progress("rounds", rounds) as progress:
        for _ in range(rounds):
            for index in turns.sample(order, len(order)):
                whole, parts = once(models[index])
                calls[index].append(whole)
                for name, us in parts.items():
                    kernels[index].setdefault(name, []).append(us)
            progress()
    return Times(calls, kernels, references)


def once(model: Model) -> tuple[float, dict[str, float]]:
    """Medians of some calls and of some others, layer by layer, in short turns, so that both meet the same machine."""
    codes = np.random.default_rng(SEED).integers(0, 256, model.input_shape, "uint8")
    whole: list[float] = []
    parts: dict[str, list[float]] = {}
    for _ in range(TURNS):
        whole += model.measure(repeats=CALLS, warmup=1)
        for name, seconds in model.profile(codes, CALLS).items():
            parts.setdefault(name, []).extend(seconds)
    return 1e6 * statistics.median(whole), {name: 1e6 * statistics.median(s) for name, s in parts.items()}
