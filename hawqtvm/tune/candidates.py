"""The configs that may be measured on a workload, with what is known of each before it is."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

from hawqtvm.tune.features import config_features, workload_features
from schedules.dispatch import Choice, options
from schedules.target import CpuTarget
from schedules.tuning_key import tuning_key

Race = dict[int, float | None]


@dataclass(frozen=True)
class Space:
    """``choices``: every legal config of every schedule that takes a workload, each schedule's default before others.

    Their workload is the tuning key, in the schedule's layouts.  ``defaults``: how many of them are defaults; the first
    is what a build takes without measurements.  ``priors``: log of the schedule's own estimate over that of the first;
    all 0 where a schedule has none.
    """

    choices: list[Choice]
    defaults: int
    priors: list[float]

    @cached_property
    def features(self) -> list[dict[str, float]]:
        """What the cost model knows of each choice."""
        shape = workload_features(self.choices[0].workload)
        pairs = zip(self.choices, self.priors, strict=True)
        return [shape | config_features(choice) | {"prior": prior} for choice, prior in pairs]

    def examples(self, races: list[Race]) -> tuple[list[dict[str, float]], list[float], list[float]]:
        """Features, priors and scores of the choices that ran, for the cost model to learn from."""
        ran = [(index, score) for index, score in merged(races).items() if score is not None]
        return [self.features[i] for i, _ in ran], [self.priors[i] for i, _ in ran], [score for _, score in ran]


def merged(races: list[Race]) -> Race:
    """The races in one."""
    return {index: score for race in races for index, score in race.items()}


def candidate_space(workload, target: CpuTarget, threads: int) -> Space:
    """All that can be measured on a workload, by all schedules that take it."""
    found = [replace(option, workload=tuning_key(option.workload)) for option in options(workload, target, threads)]
    choices = dict.fromkeys(found)
    for option in found:
        space = option.schedule.space(option.workload, target, threads)
        choices |= dict.fromkeys(replace(option, config=config) for config in space)
    legal = [c for c in choices if c.schedule.check(c.config, c.workload, target) is None]
    return Space(legal, len(found), _priors(legal, target, threads))


def _priors(choices: list[Choice], target: CpuTarget, threads: int) -> list[float]:
    if not all(hasattr(choice.schedule, "cycles") for choice in choices):
        return [0.0] * len(choices)
    cycles = [choice.schedule.cycles(choice.config, choice.workload, target, threads) for choice in choices]
    return [math.log(each / cycles[0]) for each in cycles]
