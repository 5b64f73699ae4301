"""What tuning logs hold, by the device they were measured on."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from schedules import tuning_log


@dataclass(frozen=True)
class Log:
    """``fastest_us``: the fastest median of each workload, added up; ``last``: when it was added to, in UTC."""

    device: str
    target: str
    threads: int
    workloads: int
    trials: int
    failures: int
    fastest_us: float
    last: str


def read_logs(folders: Iterable[Path]) -> list[Log]:
    """A line for each device, target and number of threads in these folders."""
    files = sorted({path.resolve() for folder in folders for path in folder.glob("*/*.jsonl")})
    return [log for file in files if (log := _summary(list(tuning_log.read(file)))) is not None]


def _summary(records: list[tuning_log.Record]) -> Log | None:
    if not records:
        return None
    fastest: dict = {}
    for record in records:
        if record.error is None:
            fastest[record.workload] = min(fastest.get(record.workload, record.median), record.median)
    first = records[0]
    return Log(
        device=f"{first.device.cpu}, {first.device.cores} cores",
        target=first.target,
        threads=first.threads,
        workloads=len(fastest),
        trials=len(records),
        failures=sum(record.error is not None for record in records),
        fastest_us=sum(fastest.values()),
        last=max(record.measured for record in records),
    )
