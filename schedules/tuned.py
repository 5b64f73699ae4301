"""The measured schedules that a build replays."""

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from schedules import tuning_log
from schedules.dispatch import with_layouts
from schedules.target import Target
from schedules.tuning_key import tuning_key
from schedules.tuning_log import Device, GpuDevice, Record
from schedules.workload import Reformat

SHIPPED = Path(__file__).parents[1] / "tuning_logs"


class Tuned:
    """Records by what they were measured for: those of ``device`` go before those of any other."""

    def __init__(self, records: Iterable[Record], device: Device | GpuDevice | None):
        self._records: dict[tuple, list[Record]] = defaultdict(list)
        for record in records:
            if record.error is None:
                self._records[record.target, record.threads, family(record.workload)].append(record)
        for trials in self._records.values():
            trials.sort(key=lambda record: (-len(record.rounds), record.median))  # more rounds: it outlasted others
            trials.sort(key=lambda record: record.measured, reverse=True)  # only times of one run compare
            trials.sort(key=lambda record: (record.device != device, record.device.folder))

    def ranked(self, workload, target: Target, threads: int) -> list[Record]:
        """The workload's records, the one to replay first; which of them can be is for the caller to check."""
        return self._records.get((target.name, threads, family(workload)), [])


@cache
def family(workload):
    """What schedules compete for: a workload's tuning key in plain layouts, since each has layouts of its own."""
    key = tuning_key(workload)
    return key if isinstance(key, Reformat) else with_layouts(key, "NCHW", "NCHW")


def load_tuned(target: Target, threads: int, device: Device | GpuDevice | None, folders: Iterable[Path]) -> Tuned:
    """The logs for this target and number of threads in these folders, of every device."""
    files = sorted(
        {path.resolve() for folder in folders for path in folder.glob(f"*/{tuning_log.log_name(target.name, threads)}")}
    )
    return Tuned((record for file in files for record in tuning_log.read(file)), device)
