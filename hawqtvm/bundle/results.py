"""What a bundle measured -> tuning logs, which builds replay."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hawqtvm.errors import BadInput
from hawqtvm.files import append_lines, check_appendable
from schedules import tuning_log
from schedules.target import CudaTarget, find_target
from schedules.tuning_log import GpuDevice, Record


@dataclass(frozen=True)
class Result:
    """A workload on a device: ``us`` of its fastest schedule and ``default_us`` of its first, None where that failed.

    ``tried``, ``failed``: numbers of candidates.  ``note``: what its lines say beside their numbers.
    """

    device: str
    target: str
    workload: Any
    schedule: str
    config: str
    us: float | None
    default_us: float | None
    tried: int
    failed: int
    note: str | None


def take(
    path: str | os.PathLike, logs: str | os.PathLike, target: str | None = None
) -> tuple[list[Path], list[Result]]:
    """Appends a bundle's results to the logs of the devices that they are of; what is there already is not added twice.

    Returns those logs and a row a workload.  BadInput for a file that cannot be read, holds no results, a damaged line
    or one of another target than ``target``, and for logs that cannot be written.
    """
    lines = _lines(Path(path), find_target(target) if target else None)
    places: dict[Path, list[str]] = {}
    for text, record in lines:
        place = tuning_log.log_path(Path(logs), record.device, record.target, record.threads)
        places.setdefault(place, []).append(text + "\n")
    for place in places:
        check_appendable(place)
    for place, texts in places.items():
        known = set(place.read_text(errors="replace").splitlines(keepends=True)) if place.is_file() else set()
        append_lines(place, "".join(text for text in texts if text not in known))
    return list(places), _rows(lines)


def _lines(path: Path, target) -> list[tuple[str, Record]]:
    try:
        texts = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise BadInput(f"cannot read the results {path}: {error.strerror or error}") from error
    if not texts:
        raise BadInput(f"{path} is empty: run the bundle on a machine with the GPU first")
    return [(text, _record(text, f"line {number} of {path}", target)) for number, text in enumerate(texts, 1)]


def _record(text: str, where: str, target) -> Record:
    record = tuning_log.parse(text)
    if record is None or not isinstance(record.device, GpuDevice):
        raise BadInput(f"{where} is no result of a bundle: damaged, or another file; run the bundle again, it goes on")
    known = find_target(record.target)
    if not isinstance(known, CudaTarget) or target not in (None, known):
        wanted = target.name if target else "an NVIDIA GPU"
        raise BadInput(f"{where} was measured for {record.target}, not for {wanted}: name the right file or --target")
    return record


def _rows(lines: Sequence[tuple[str, Record]]) -> list[Result]:
    groups: dict[tuple, list[Record]] = {}
    for _, record in lines:
        groups.setdefault((record.device, record.target, record.workload, record.measured), []).append(record)
    return list(map(_row, groups.values()))


def _row(records: list[Record]) -> Result:
    first = records[0]
    best = min((record for record in records if record.rounds), key=lambda record: record.median, default=None)
    shown = best or first
    return Result(
        first.device.gpu,
        first.target,
        first.workload,
        shown.schedule,
        ", ".join(f"{name}={value}" for name, value in shown.config.items()),
        best and best.median,
        first.median if first.rounds else None,
        len(records),
        sum(record.error is not None for record in records),
        first.note,
    )
