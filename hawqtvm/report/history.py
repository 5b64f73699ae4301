"""Runs as files of a directory, one each, under their devices' names: any number of jobs may add at once."""

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hawqtvm.console import note
from hawqtvm.errors import BadInput
from hawqtvm.report.run import Run, read_run, write_run
from hawqtvm.report.statistics import CONFIDENCE, levels, median_limits


@dataclass(frozen=True)
class Point:
    """One run's time: microseconds as the history's usual clock would give, with 95 % limits."""

    measured: str
    commit: str | None
    us: float
    low: float
    high: float


@dataclass(frozen=True)
class Trend:
    """A network's, or a layer's, times on one device, oldest first."""

    device: str
    network: str
    layer: str | None
    points: tuple[Point, ...]


def append(folder: str | os.PathLike, run: Run) -> Path:
    """Adds the run as ``<folder>/<device>/<time>-<commit>-<random>.json``; the file appears whole or not at all."""
    time = re.sub(r"[^0-9T]", "", run.measured.partition("+")[0])
    commit = re.sub(r"[^A-Za-z0-9]", "", run.commit or "")[:12] or "none"
    path = Path(folder) / run.device.name / f"{time}-{commit}-{secrets.token_hex(4)}.json"
    write_run(run, path)
    return path


def read_history(folder: str | os.PathLike) -> list[Run]:
    """All runs of a history, oldest first; a damaged file is named on stderr and left out.

    BadInput when there is no such folder, or nothing in it can be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"no such history: {folder}; measure --history {folder} begins one")
    runs, damaged = [], []
    for path in sorted(folder.glob("*/*.json")):
        try:
            runs.append(read_run(path))
        except BadInput as error:
            damaged.append(path)
            note(f"left out: {error}")
    if not runs:
        raise BadInput(f"{folder} holds no run that can be read ({len(damaged)} damaged): measure --history {folder}")
    return sorted(runs, key=lambda run: run.measured)


def trends(runs: list[Run]) -> list[Trend]:
    """What the runs say over time of each network and layer, by device.

    A number of threads, a batch or a checkpoint makes a network of its own.  Each run's rounds are taken in units of
    its yardstick, and these in microseconds by the median of all the device's yardsticks.
    """
    found: dict[tuple, list[Point]] = {}
    unit = _units(runs)
    for run in runs:
        kind = run.device.name, run.versions.yardstick
        yardstick = [load.yardstick_us for load in run.load]
        for network in run.networks:
            setting = f"batch {network.batch}, threads {network.threads}, weights {network.checkpoint[:8]}"
            for layer, rounds in network.series.items():
                logs = np.log(levels(rounds, yardstick) * unit[kind])
                limits = median_limits(logs, CONFIDENCE)
                us, low, high = (float(np.exp(value)) for value in (np.median(logs), *limits))
                # too few rounds for limits: as wide as what was seen
                low, high = max(low, float(np.exp(logs.min()))), min(high, float(np.exp(logs.max())))
                found.setdefault((run.device.name, f"{network.name}, {setting}", layer), []).append(
                    Point(run.measured, run.commit, us, low, high)
                )
    return [Trend(*key, tuple(points)) for key, points in found.items()]


def _units(runs: list[Run]) -> dict[tuple[str, str], float]:
    """Microseconds of a yardstick on each device."""
    seen: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        median = float(np.median([us for load in run.load for us in load.yardstick_us]))
        seen.setdefault((run.device.name, run.versions.yardstick), []).append(median)
    return {kind: float(np.median(values)) for kind, values in seen.items()}
