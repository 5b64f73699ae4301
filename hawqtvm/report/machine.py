"""The machine a run is measured on: what it is, and how busy others keep it."""

import os
import platform
import ssl
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

import hawqtvm
from hawqtvm.report.run import Device, Versions
from schedules.tuning_log import this_device

STAT, CPUINFO = Path("/proc/stat"), Path("/proc/cpuinfo")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
IDLE, IOWAIT, STEAL = 3, 4, 7  # columns of /proc/stat
COLUMNS = 8  # those after count guests a second time


def device() -> Device:
    known = this_device()
    return Device(known.folder, known.cpu, known.cores, f"{platform.system()} {platform.release()}", _governor())


def versions() -> Versions:
    return Versions(
        hawqtvm.__version__, version("apache-tvm"), platform.python_version(), np.__version__, ssl.OPENSSL_VERSION
    )


def clock_mhz() -> float | None:
    line = next((line for line in _lines(CPUINFO) if line.startswith("cpu MHz")), "")
    return float(line.partition(":")[2]) if line else None


class Busy:
    """CPUs that others, and the hypervisor's other guests, used since it was made."""

    def __init__(self):
        self.wall, self.own, self.ticks = time.monotonic(), _own_seconds(), _ticks()

    def others_and_stolen(self) -> tuple[float, float]:
        wall = max(time.monotonic() - self.wall, 1e-9)
        if self.ticks is None:
            return 0.0, 0.0
        busy, stolen = ((now - then) / os.sysconf("SC_CLK_TCK") for now, then in zip(_ticks(), self.ticks, strict=True))
        return max(0.0, busy - (_own_seconds() - self.own)) / wall, max(0.0, stolen) / wall


def _ticks() -> tuple[int, int] | None:
    """Ticks in which all CPUs were busy with someone here, and those stolen; None where Linux does not say."""
    line = next(iter(_lines(STAT)), "")
    if not line.startswith("cpu "):
        return None
    columns = [int(value) for value in line.split()[1 : 1 + COLUMNS]]
    return sum(columns) - columns[IDLE] - columns[IOWAIT] - columns[STEAL], columns[STEAL]


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _governor() -> str:
    return next(iter(_lines(GOVERNOR)), "not told by the system")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
