"""Which schedules and configs are worth measuring on a workload."""

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

from schedules.dispatch import Choice, options
from schedules.target import CpuTarget
from schedules.tuning_key import tuning_key

SEED = 0


def candidates(workload, target: CpuTarget, threads: int, trials: int) -> list[Choice]:
    """For every schedule that takes the workload: its default, then the most promising of its space, ``trials`` in all.

    Their workload is the tuning key, in the schedule's layouts.
    """
    found = []
    for option in options(workload, target, threads):
        key = tuning_key(option.workload)
        configs = dict.fromkeys([option.config, *promising(option, target, threads)])
        legal = (config for config in configs if option.schedule.check(config, key, target) is None)
        found += [replace(option, config=config, workload=key) for config, _ in zip(legal, range(trials), strict=False)]
    return found


def promising(option: Choice, target: CpuTarget, threads: int) -> Iterable:
    """The schedule's space, cheapest first by its own estimate, or shuffled where it has none."""
    schedule, workload = option.schedule, option.workload
    space = schedule.space(workload, target, threads)
    cycles: Callable | None = getattr(schedule, "cycles", None)
    if cycles is None:
        return random.Random(SEED).sample(space, len(space))
    return sorted(space, key=lambda config: cycles(config, workload, target, threads))
