"""Times candidates against one another: rounds in random order, cold caches, launches queued behind a delay."""

from __future__ import annotations

import random
from collections.abc import Callable

from .driver import Driver

ROUNDS = 9
WARM_UP = 1  # rounds before them that do not count
CALLS = 3  # of a candidate's turn
SEED = 0
SWEPT = 64 << 20  # bytes that are filled before a call, at least
MOST_SWEEPS = 64

Turn = Callable[[], list[float]]


def race(turns: dict[int, Turn], rounds: int = ROUNDS, warm_up: int = WARM_UP) -> dict[int, list[list[float]]]:
    """Microseconds of each candidate's calls, a list a round; all take turns, in another order every round."""
    order, chance = list(turns), random.Random(SEED)
    results: dict[int, list[list[float]]] = {index: [] for index in order}
    for number in range(warm_up + rounds):
        chance.shuffle(order)
        for index in order:
            times = turns[index]()
            if number >= warm_up:
                results[index].append(times)
    return results


class Stopwatch:
    """Times a sequence of launches by events.

    Before it, memory of more than the second-level cache is filled, so that nothing is cached, and so slowly that all
    launches are queued by the time it ends: what a launch costs the processor is then in no time.
    """

    def __init__(self, driver: Driver, l2_bytes: int) -> None:
        self.driver, self.size, self.sweeps = driver, max(SWEPT, 2 * l2_bytes), 1
        self._swept, self._start, self._stop = driver.allocate(self.size), driver.event(), driver.event()

    def time(self, launches: list[Callable[[], None]]) -> float:
        """Microseconds of one of the launches, on average."""
        while True:
            late = self._begin(launches)
            self.driver.wait()
            if not late or self.sweeps >= MOST_SWEEPS:
                return self.driver.microseconds(self._start, self._stop) / len(launches)
            self.sweeps *= 2

    def _begin(self, launches: list[Callable[[], None]]) -> bool:
        """Queues everything; whether the launches began before the last was queued."""
        for _ in range(self.sweeps):
            self.driver.fill(self._swept, 0, self.size)
        self.driver.record(self._start)
        for launch in launches:
            launch()
        late = self.driver.passed(self._start)
        self.driver.record(self._stop)
        return late
