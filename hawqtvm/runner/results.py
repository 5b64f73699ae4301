"""The file of results: a candidate a line, as hawqtvm's tuning logs have it, appended a workload at a time."""

from __future__ import annotations

import json
import os
import statistics
from datetime import datetime, timezone
from pathlib import Path

from .attempt import Findings
from .driver import Facts

START = b'{"format": "hawqtvm-trial"'


class Foreign(Exception):
    """The file holds something else than results."""


class Results:
    """The file at ``path``, which need not be there; a last line that was cut short is dropped.

    ``done``: the lines of each workload of the bundle that was measured on this device, by its number.
    OSError where it cannot be written, Foreign where it is of another kind.
    """

    def __init__(self, path: str, facts: Facts, driver: str, about: dict) -> None:
        self.device = {"gpu": facts.name, "sms": facts.sms}
        self._about, self._known = about, {"device": self.device, "driver": driver, "bundle": about["id"]}
        self.path = Path(path)
        self.done: dict[int, list[dict]] = {}
        with self.path.open("ab+") as file:
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            for line in content[:whole].splitlines():
                self._remember(line)
            if content[whole:][: len(START)] != START[: len(content) - whole]:
                raise Foreign(content[whole:][: len(START)])
            file.truncate(whole)
        for number, lines in list(self.done.items()):
            count = len(about["workloads"][number]["candidates"])
            if len(lines) < count:  # its lines were cut short
                del self.done[number]
            else:
                self.done[number] = lines[-count:]

    def add(self, number: int, findings: Findings) -> list[dict]:
        """The lines of a workload, once they are on disk."""
        workload, now = self._about["workloads"][number], datetime.now(timezone.utc).isoformat(timespec="microseconds")
        made = []
        for index, candidate in enumerate(workload["candidates"]):
            rounds = findings.times.get(index, [])
            times = [us for calls in rounds for us in calls]
            numbers = {"median_us": middle(rounds), "min_us": min(times)} if times else {}
            trial = {"measured": now, "schedule": candidate["schedule"], "config": candidate["config"], **numbers}
            ends = {"rounds_us": rounds, "error": findings.errors.get(index), "number": number}
            made.append({**workload["record"], **self._known, **trial, **ends})
        with self.path.open("ab") as file:
            file.write(b"".join(json.dumps(line).encode() + b"\n" for line in made))
            file.flush()
            os.fsync(file.fileno())
        self.done[number] = made
        return made

    def _remember(self, text: bytes) -> None:
        try:
            line = json.loads(text)
            if line["bundle"] == self._about["id"] and line["device"] == self.device:
                self.done.setdefault(line["number"], []).append(line)
        except (ValueError, TypeError, KeyError):
            raise Foreign(text[: len(START)]) from None


def middle(rounds: list[list[float]]) -> float:
    """The median of the rounds' best calls, as tuning logs have it."""
    return round(statistics.median(min(calls) for calls in rounds), 2)
