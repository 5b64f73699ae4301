"""Times candidates against one another on a device that others may use too.

All candidates of a race take turns, so that what slows the device slows them alike.  TVM's time evaluator times a turn
on the device itself, so no time of the network's is in it: ``CALLS`` calls, and before each ``SWEPT`` bytes pass
through the caches, so that a layer finds its weights as it does in a network, where all other layers ran since.
A round begins and ends with the race's reference, its first candidate that runs; a round in which the reference's time
changed was disturbed and is repeated.  After each pass the slower half leaves, and whoever is clearly slower than the
best; the reference stays, for ratios to it are what races have in common.
"""

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence

from hawqtvm.tune.kernel import Arguments, Built
from schedules.tuning_log import median

SWEPT = 24 * 2**20
CALLS = 3  # of a candidate's turn
PASSES = (3, 3, 5)  # rounds
CLEARLY = 1.15  # times the best's
STEADY = 1.1  # times what the reference took at the round's other end
REPEATED = 6  # disturbed rounds of a race that are repeated; a machine that is never quiet still gets its times
LONGEST = 60.0  # seconds after which no further round begins
SEED = 0

Calls = tuple[float, ...]
Rounds = list[Calls]
Turn = Callable[[], Calls]


def race(turns: dict[int, Turn], clock: Callable[[], float] = time.monotonic) -> dict[int, Rounds]:
    """Microseconds of each candidate's calls, a tuple a round; those that stayed longer have more rounds."""
    chance, results = random.Random(SEED), {index: [] for index in turns}
    left, spare, started = list(turns), REPEATED, clock()
    for rounds in PASSES:
        missing = rounds
        while missing and (clock() - started < LONGEST or not results[left[0]]):
            times, steady = _round(turns, left, chance)
            if not steady and spare:
                spare -= 1
                continue
            missing -= 1
            for index, calls in times.items():
                results[index].append(calls)
        left = _stay(results, left)
    return results


def _round(turns: dict[int, Turn], left: list[int], chance: random.Random) -> tuple[dict[int, Calls], bool]:
    """A turn of everyone left, between two of the reference, and whether the latter agree."""
    reference, *others = left
    times = {reference: turns[reference]()}
    for index in chance.sample(others, len(others)):
        times[index] = turns[index]()
    ends = min(times[reference]), min(turns[reference]()) if others else min(times[reference])
    return times, max(ends) <= STEADY * min(ends)


def _stay(results: dict[int, Rounds], left: list[int]) -> list[int]:
    ranking = sorted((median(results[index]), index) for index in left)
    better = [index for us, index in ranking[: -(-len(left) // 2)] if us <= CLEARLY * ranking[0][0]]
    return [left[0], *(index for index in left[1:] if index in better)]


def log_ratio(rounds: Sequence[Calls], reference: Sequence[Calls]) -> float:
    """Log of a candidate's time over the reference's: the median over the rounds that both ran."""
    return statistics.median(
        math.log(min(calls) / min(others)) for calls, others in zip(rounds, reference, strict=False)
    )


def turn(built: Built, module, values: Arguments) -> Turn:
    """A candidate's turn on the device where ``module`` is loaded."""
    arguments = built.arguments(module, values)
    # half is read and half is written
    timed = module.time_evaluator("main", values.device, number=1, repeat=CALLS, cache_flush_bytes=SWEPT // 2)
    return lambda: tuple(round(1e6 * seconds, 2) for seconds in timed(*arguments).results)
