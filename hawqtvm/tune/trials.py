"""The trials of one device, target and number of threads: those in its log, and those still to measure."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hawqtvm.files import append_lines
from hawqtvm.tune.candidates import candidates
from hawqtvm.tune.measure import Rounds, measure
from schedules import tuning_log
from schedules.dispatch import Choice, choose, options
from schedules.plain_json import to_json
from schedules.target import CpuTarget
from schedules.tuned import Tuned, family
from schedules.tuning_key import tuning_key
from schedules.tuning_log import Record

LONGEST_ERROR = 300  # characters


@dataclass(frozen=True)
class Row:
    """A workload of a network and the schedule that a build takes for it.

    ``layers``: those that compute it.  ``us``, ``default_us``: microseconds of the chosen config, and of the one taken
    without measurements; None where there are none.  ``tried``, ``failed``: numbers of trials.
    """

    workload: Any
    layers: list[str]
    schedule: str
    config: str
    us: float | None
    default_us: float | None
    tried: int
    failed: int


class Trials:
    """The log at ``path``.  BadInput when it cannot be read."""

    def __init__(self, path: Path, target: CpuTarget, threads: int):
        self.path, self.target, self.threads = path, target, threads
        self.device = tuning_log.this_device()
        self._known: dict[Any, dict[str, Record]] = defaultdict(dict)
        self._learn(tuning_log.read(path))

    def measure(self, workload, most: int) -> None:
        """Measures and logs what is missing of at most ``most`` candidates a schedule.

        The best known so far takes part again: only times of one run compare.
        """
        known = self._known[family(workload)]
        missing = [c for c in candidates(workload, self.target, self.threads, most) if self._trial(c) not in known]
        if not missing:
            return
        best = self._choose(tuning_key(workload))
        entrants = [best, *missing] if best.measured else missing
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        results = measure(entrants, self.target, self.threads)
        records = [self._record(*pair, now) for pair in zip(entrants, results, strict=True)]
        append_lines(self.path, "".join(map(tuning_log.line, records)))
        self._learn(records)

    def row(self, workload, layers: list[str]) -> Row:
        """What came of a workload."""
        known = self._known[family(workload)]
        chosen, default = self._choose(workload), options(workload, self.target, self.threads)[0]
        us, default_us = (
            record.median if record and record.rounds else None
            for record in (known.get(self._trial(choice)) for choice in (chosen, default))
        )
        failed = sum(record.error is not None for record in known.values())
        return Row(chosen.workload, layers, chosen.name, str(chosen.config), us, default_us, len(known), failed)

    def _learn(self, records) -> None:
        for record in records:
            self._known[family(record.workload)][record.trial] = record

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
