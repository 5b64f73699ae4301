"""Workloads and configs as numbers for the cost model: ``{name: value}``, sizes by their logarithm."""

import math
from itertools import combinations
from typing import Any

from schedules.dispatch import Choice
from schedules.plain_json import to_json
from schedules.tuning_log import workload_json


def workload_features(workload) -> dict[str, float]:
    """Every number of a workload by its path, every text as an indicator: ``epilogue.out.code=uint8``: 1."""
    return dict(_leaves(workload_json(workload), ""))


def config_features(choice: Choice) -> dict[str, float]:
    """A choice's knobs and the products of every two: tiles, shares and what they hold; named after the schedule.

    Knobs of other schedules are absent, and so missing values to the model.
    """
    knobs = {name: _size(value) for name, value in to_json(choice.config).items()}
    products = {f"{a}*{b}": knobs[a] + knobs[b] for a, b in combinations(knobs, 2)}
    named = {f"{choice.name}.{name}": value for name, value in (knobs | products).items()}
    return named | {f"schedule={choice.name}": 1.0}


def _leaves(value: Any, path: str):
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}.{index}")
    elif isinstance(value, str):
        yield f"{path}={value}", 1.0
    elif value is not None:
        yield path, _size(value)


def _size(value: float) -> float:
    return math.copysign(math.log2(1 + abs(value)), value)
