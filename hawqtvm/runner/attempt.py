"""A workload measured in processes of their own, whatever its kernels do to them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

WORKER = "--worker"  # the option with which this program is a worker
SILENCE = 60.0  # seconds of a turn after which it hangs


class Broken(Exception):
    """A process ended before the first candidate's turn, and so would the next."""


@dataclass
class Findings:
    """``errors``: why a candidate, by its number, is wrong or does not run.  ``times``: of the others, microseconds."""

    errors: dict[int, str] = field(default_factory=dict)
    times: dict[int, list[list[float]]] = field(default_factory=dict)


@dataclass
class Attempt:
    """What one process said.  ``turn``: the candidate whose turn was last.  ``code``: its exit code."""

    findings: Findings
    turn: int | None = None
    fault: str = ""
    code: int = 0


def measured(path: str, number: int, device: int, timed: bool = True, silence: float = SILENCE) -> Findings:
    """Of the workload ``number`` of the bundle at ``path``; a candidate that ends its process takes no further part.

    Raises Broken.
    """
    errors: dict[int, str] = {}
    while True:
        attempt = run(path, number, device, list(errors), timed, silence)
        errors.update(attempt.findings.errors)
        if not attempt.code:
            return Findings(errors, attempt.findings.times)
        if attempt.turn is None:
            raise Broken(attempt.fault or f"the worker ended with exit code {attempt.code}")
        errors[attempt.turn] = attempt.fault or f"its process ended with exit code {attempt.code}"


def run(
    path: str,
    number: int,
    device: int,
    left_out: list[int],
    timed: bool,
    silence: float,
    before: Sequence[str] = (),
) -> Attempt:
    """One process, to its end; ``before``: a program that runs it, with its options."""
    asked = json.dumps({"number": number, "device": device, "left_out": left_out, "timed": timed})
    command = [*before, sys.executable, path, WORKER, asked]
    attempt = Attempt(Findings())
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for said in lines(process, attempt, silence):
                listen(attempt, said)
        except BaseException:
            process.kill()
            raise
    attempt.code = process.returncode
    return attempt


def lines(process: subprocess.Popen, attempt: Attempt, silence: float) -> Iterator[str]:
    """What the process says, which is killed when it says nothing for too long."""

    def hangs() -> None:
        attempt.fault = f"nothing came back for {silence:.0f} s"
        process.kill()

    while True:
        watch = threading.Timer(silence, hangs)
        watch.start()
        try:
            line = process.stdout.readline()
        finally:
            watch.cancel()
        if not line:
            return
        yield line


def listen(attempt: Attempt, line: str) -> None:
    said = json.loads(line)
    attempt.turn = said.get("begins", attempt.turn)
    attempt.fault = said.get("fault", attempt.fault)
    if said.get("error") is not None:
        attempt.findings.errors[said["checked"]] = said["error"]
    for index, rounds in said.get("times", {}).items():
        attempt.findings.times[int(index)] = rounds
