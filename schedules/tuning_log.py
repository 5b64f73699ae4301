"""Measured schedules on disk: ``<logs>/<device>/<target>-<threads>.jsonl``, one JSON line a trial.

Lines are only ever appended, whole; a later line of a trial stands for it instead of the earlier.  What is no record
that this hawqtvm reads (a torn last line, another version, an operator it does not know) is passed over.
"""

import json
import math
import os
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from hawqtvm.errors import BadInput
from hawqtvm.runner import driver
from hawqtvm.runtime import gpu
from hawqtvm.runtime.cpu import cpu_name
from schedules.plain_json import from_json, to_json
from schedules.target import CudaTarget, Target
from schedules.workload import AvgPool2d, Concat, Conv2d, Dense, Elementwise, MaxPool2d, Reformat

FORMAT, VERSION = "hawqtvm-trial", 1
WORKLOADS = {kind.__name__: kind for kind in (Conv2d, Dense, Elementwise, MaxPool2d, AvgPool2d, Concat, Reformat)}


@dataclass(frozen=True)
class Device:
    """``cpu``: the processor's model name; ``cores``: how many of it the machine has."""

    cpu: str
    cores: int

    @property
    def folder(self) -> str:
        words = re.sub(r"\(R\)|\(TM\)|CPU|Processor", " ", self.cpu)
        return "-".join(re.findall(r"[a-z0-9]+", f"{words} {self.cores} cores".lower()))


@dataclass(frozen=True)
class GpuDevice:
    """``gpu``: the name that NVIDIA's driver gives it; ``sms``: its streaming multiprocessors."""

    gpu: str
    sms: int

    @property
    def folder(self) -> str:
        return driver.folder(self.gpu)


def this_device() -> Device:
    return Device(cpu_name(), os.cpu_count() or 1)


def device_for(target: Target) -> Device | GpuDevice | None:
    """What here runs kernels for a target; None where it would be a GPU and there is none."""
    if not isinstance(target, CudaTarget):
        return this_device()
    found = gpu.find(target.arch)
    return found and GpuDevice(found.name, found.sms)


@dataclass(frozen=True)
class Record:
    """A trial: a schedule's config on a workload, and what came of it.

    ``workload``: a :func:`~schedules.tuning_key.tuning_key`, in the schedule's layouts.  ``config``: its fields.
    ``rounds``: microseconds of each call, a tuple a round.  ``error``: why there are none.  ``measured``: when, in UTC;
    trials that share it took turns, so their times compare.  ``note``: what else to know of the times.
    """

    device: Device | GpuDevice
    target: str
    threads: int
    workload: Any
    schedule: str
    config: dict[str, Any]
    rounds: tuple[tuple[float, ...], ...]
    error: str | None
    measured: str
    tvm: str
    note: str | None = None

    @property
    def trial(self) -> str:
        return trial(self.target, self.threads, self.workload, self.schedule, self.config)

    @cached_property
    def median(self) -> float:
        return median(self.rounds)

    @property
    def least(self) -> float:
        return min(min(calls) for calls in self.rounds)


def median(rounds: Sequence[tuple[float, ...]]) -> float:
    """The median of the rounds' best calls: others on the machine only ever add time."""
    return round(statistics.median(min(calls) for calls in rounds), 2)


def trial(target: str, threads: int, workload, schedule: str, config: dict[str, Any]) -> str:
    """What was tried, the same for two records of one trial."""
    return _workload_text(workload) + json.dumps([target, threads, schedule, config], sort_keys=True)


@cache  # a log has many lines of few workloads
def _workload_text(workload) -> str:
    return json.dumps(workload_json(workload), sort_keys=True)


@cache
def _workload(text: str) -> Any:
    fields = json.loads(text)
    return from_json(WORKLOADS[fields.pop("op")], fields)


def workload_json(workload) -> dict[str, Any]:
    return {"op": type(workload).__name__} | to_json(workload)


def log_path(logs: Path, device: Device | GpuDevice, target: str, threads: int) -> Path:
    return logs / device.folder / log_name(target, threads)


def log_name(target: str, threads: int) -> str:
    _, _, name = target.rpartition("/")
    return f"{name}-{threads}.jsonl"


def line(record: Record) -> str:
    """The record as a line of JSON, its end included."""
    times = {"median_us": record.median, "min_us": record.least} if record.rounds else {}
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "measured": record.measured,
        "device": to_json(record.device),
        "tvm": record.tvm,
        "target": record.target,
        "threads": record.threads,
        "workload": workload_json(record.workload),
        "schedule": record.schedule,
        "config": record.config,
        **times,
        "rounds_us": to_json(record.rounds),
        "error": record.error,
    }
    fields |= {"note": record.note} if record.note else {}
    return json.dumps(fields) + "\n"


def parse(text: str) -> Record | None:
    """The record in a line, or None where it holds none."""
    try:
        fields = json.loads(text)
        if fields["format"] != FORMAT or fields["version"] != VERSION:
            return None
        record = Record(
            device=from_json(GpuDevice if "gpu" in fields["device"] else Device, fields["device"]),
            target=from_json(str, fields["target"]),
            threads=from_json(int, fields["threads"]),
            workload=_workload(json.dumps(fields["workload"])),
            schedule=from_json(str, fields["schedule"]),
            config=dict(fields["config"]),
            rounds=_rounds(fields["rounds_us"]),
            error=from_json(str | None, fields["error"]),
            measured=from_json(str, fields["measured"]),
            tvm=from_json(str, fields["tvm"]),
            note=from_json(str | None, fields.get("note")),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return record if record.error is not None or _timed(record.rounds) else None


def _rounds(value: list) -> tuple[tuple[float, ...], ...]:
    rounds = tuple(tuple(calls) for calls in value)
    if not all(type(us) is float for calls in rounds for us in calls):
        raise ValueError(f"{value!r} is no list of lists of times")
    return rounds


def _timed(rounds: tuple[tuple[float, ...], ...]) -> bool:
    return bool(rounds) and all(calls and all(0 < us < math.inf for us in calls) for calls in rounds)


def history(path: Path) -> Iterator[Record]:
    """Every record of a log, in order; none where there is no file.  BadInput when it cannot be read."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadInput(f"cannot read the tuning log {path}: {error.strerror or error}") from error
    yield from (record for record in map(parse, text.split("\n")) if record is not None)


def read(path: Path) -> Iterator[Record]:
    """The records of a log, the last of each trial.  Raises as :func:`history`."""
    yield from {record.trial: record for record in history(path)}.values()
