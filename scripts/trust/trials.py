"""Comparisons over and over, each a line of JSON; what is there already is not measured again."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from hawqtvm.console import Progress
from hawqtvm.files import append_lines
from hawqtvm.report import compare, measure_pairs
from hawqtvm.report.again import again

HEADS = {"A/A": "same", "layer slower": "layer", "network slower": "network"}
LOADS = ("quiet", "one core loaded")
BUSY = "while True: pass"


def trials(folder: Path, subjects: dict, count: int, rounds: int) -> None:
    """Until ``folder``/trials.jsonl has ``count`` of each kind under each load; kinds take turns: machines change."""
    log = folder / "trials.jsonl"
    done = {(line["number"], line["load"], line["kind"]) for line in read(log)}
    missing = [
        (number, load, kind)
        for number in range(count)
        for load in LOADS
        for kind in HEADS
        if (number, load, kind) not in done
    ]
    with Progress("comparisons", len(missing)) as progress:
        for number, load, kind in missing:
            with loaded(load):
                line = trial(folder, subjects, kind, rounds)
            append_lines(log, json.dumps({"number": number, "load": load, "kind": kind} | line) + "\n")
            progress(f"{load}, {kind}: {line['verdict']}")


def trial(folder: Path, subjects: dict, kind: str, rounds: int) -> dict:
    """One comparison as CI makes it: measured in turns, again where it is not a pass."""
    started = time.monotonic()
    base, head = measure_pairs([folder / "base"], [folder / HEADS[kind]], rounds=rounds)
    comparison = compare(base, head, again=again(base, head))
    wanted = subjects[HEADS[kind]]["row"] if HEADS[kind] in subjects else None
    row = next(row for row in comparison.rows if row.layer == wanted)
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": comparison.verdict,
        "row": {"layer": wanted, "verdict": row.verdict, "ratio": row.shift.ratio, "p": row.p},
        "alarms": [row.layer or "network" for row in comparison.rows if row.verdict == "regression"],
        "remeasured": comparison.remeasured,
        "seconds": round(time.monotonic() - started, 1),
        "others_cpus": float(np.median([load.others for load in comparison.head.load])),
    }


@contextmanager
def loaded(load: str):
    """While inside, another process computes without a pause, if the load is to be."""
    if load == LOADS[0]:
        yield
        return
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def read(log: Path) -> list[dict]:
    """The whole lines of a log; one that was cut short is measured again."""
    lines = []
    for text in log.read_text().splitlines() if log.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines
