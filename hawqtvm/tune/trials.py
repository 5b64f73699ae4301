"""The trials of one device, target and number of threads: those in its log, and those still to measure."""

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from hawqtvm.files import append_lines
from hawqtvm.tune.candidates import Space, candidate_space
from hawqtvm.tune.cost_model import CostModel
from hawqtvm.tune.measure import Rounds, log_ratio
from hawqtvm.tune.search import Race, propose
from schedules import tuning_log
from schedules.dispatch import Choice, choose, options
from schedules.plain_json import to_json
from schedules.target import CpuTarget
from schedules.tuned import Tuned, family
from schedules.tuning_key import tuning_key
from schedules.tuning_log import Device, Record

LONGEST_ERROR = 300  # characters

Measure = Callable[[Sequence[Choice]], list[Rounds | Exception]]


@dataclass(frozen=True)
class Row:
    """A workload of a network and the schedule that a build takes for it.

    ``plan``: the network's, such as "int4".  ``layers``: those that compute it.  ``us``: microseconds of the chosen
    config; ``default_us``: of the one taken without measurements, by the ratio of the races between them; None where
    there are none.  ``tried``, ``failed``: numbers of trials.
    """

    plan: str
    workload: Any
    layers: list[str]
    schedule: str
    config: str
    us: float | None
    default_us: float | None
    tried: int
    failed: int


class Trials:
    """The log at ``path``, of ``device``; may be used by several threads.  BadInput when it cannot be read."""

    def __init__(self, path: Path, target: CpuTarget, threads: int, device: Device):
        self.path, self.target, self.threads, self.device = path, target, threads, device
        self._known: dict[Any, dict[str, Record]] = defaultdict(dict)
        self._races: dict[Any, list[dict[str, float | None]]] = defaultdict(list)
        self._scores: dict[Any, dict[str, float]] = defaultdict(dict)
        self._learned: dict[Any, tuple[list[dict[str, float]], list[float], list[float]]] = {}
        self._lock = threading.Lock()
        records = [record for record in tuning_log.history(path) if record.device == device]
        for _, race in groupby(records, lambda record: (record.measured, family(record.workload))):
            self._learn(list(race))

    def search(self, workload, most: int, measure: Measure) -> None:
        """Measures and logs candidates of a workload until the search is over, at most ``most`` in all.

        The best known so far takes part in every race: only times of one race compare.
        """
        space = candidate_space(workload, self.target, self.threads)
        while batch := self._propose(workload, space, most):
            self.race(workload, [space.choices[index] for index in batch], measure)

    def race(self, workload, choices: list[Choice], measure: Measure) -> None:
        """Measures choices of a workload beside the best known so far, and logs them."""
        best = self._choose(tuning_key(workload))
        entrants = [best] * best.measured + choices
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        records = [self._record(*pair, now) for pair in zip(entrants, measure(entrants), strict=True)]
        with self._lock:
            append_lines(self.path, "".join(map(tuning_log.line, records)))
            self._learn(records)

    def races(self, workload, space: Space) -> list[Race]:
        """What was measured of a workload's space, in order."""
        places = {self._trial(choice): index for index, choice in enumerate(space.choices)}
        races = self._races[family(workload)]
        return [{places[name]: score for name, score in race.items() if name in places} for race in races]

    def row(self, plan: str, workload, layers: list[str]) -> Row:
        """What came of a workload."""
        known, scores = self._known[family(workload)], self._scores[family(workload)]
        chosen, default = self._choose(workload), options(workload, self.target, self.threads)[0]
        us = default_us = None
        record = known.get(self._trial(chosen))
        if record and record.rounds:
            us = record.median
            if (score := scores.get(self._trial(default))) is not None:
                default_us = round(us * math.exp(score - scores[record.trial]), 2)
        failed = sum(record.error is not None for record in known.values())
        return Row(plan, chosen.workload, layers, chosen.name, str(chosen.config), us, default_us, len(known), failed)

    def _propose(self, workload, space: Space, most: int) -> list[int]:
        """Indices of the choices to race next, by a model of all that was measured so far."""
        with self._lock:
            races = self.races(workload, space)
            self._learned[family(workload)] = space.examples(races)
            columns = zip(*self._learned.values(), strict=True)
            model = CostModel()
            model.fit(*([value for part in column for value in part] for column in columns))
        return propose(space, races, model, most)

    def _learn(self, race: list[Record]) -> None:
        """Takes in the records of a race: its first that ran is the reference of the others' scores."""
        key = family(race[0].workload)
        self._known[key] |= {record.trial: record for record in race}
        scores, reference = self._scores[key], next((record for record in race if record.rounds), None)
        ratios: dict[str, float | None] = {}
        for record in race:
            ratios[record.trial] = None
            if record.rounds and reference:
                ratio = log_ratio(record.rounds, reference.rounds)
                ratios[record.trial] = scores.setdefault(record.trial, scores.get(reference.trial, 0.0) + ratio)
        self._races[key].append(ratios)

    def _choose(self, workload) -> Choice:
        known = self._known[family(workload)]
        return choose(workload, self.target, self.threads, Tuned(known.values(), self.device))

    def _trial(self, choice: Choice) -> str:
        workload, config = tuning_key(choice.workload), to_json(choice.config)
        return tuning_log.trial(self.target.name, self.threads, workload, choice.name, config)

    def _record(self, choice: Choice, result: Rounds | Exception, now: str) -> Record:
        failed = isinstance(result, Exception)
        return Record(
            device=self.device,
            target=self.target.name,
            threads=self.threads,
            workload=choice.workload,
            schedule=choice.name,
            config=to_json(choice.config),
            rounds=() if failed else tuple(result),
            error=f"{type(result).__name__}: {result}"[:LONGEST_ERROR] if failed else None,
            measured=now,
            tvm=version("apache-tvm"),
        )
