"""Limits as users write them: a fraction between all-4 and all-8, or a value with its unit."""

import math
import re

from hawqtvm.allocate.problem import LIMITED, Problem
from hawqtvm.errors import BadInput

UNITS = {
    "size": {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20},
    "bops": {"M": 1e6, "G": 1e9, "T": 1e12},
    "latency": {"us": 1, "ms": 1e3, "s": 1e6},
}
SHOWN = {"size": "MB", "bops": "G", "latency": "ms"}
VALUE = re.compile(r"(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)\s*([A-Za-z]*)")


def in_unit(quantity: str, value: float) -> float:
    """A value in the unit it is shown in: MB (10**6 bytes), G (10**9 bit operations), ms."""
    return value / UNITS[quantity][SHOWN[quantity]]


def shown(quantity: str, value: float) -> str:
    """As a user would write it, to six digits."""
    return f"{in_unit(quantity, value):.6g}{SHOWN[quantity]}"


def shown_feasible(quantity: str, value: float) -> str:
    """As :func:`shown`, rounded up: a limit of so much is met."""
    number = in_unit(quantity, value)
    step = 10.0 ** (math.floor(math.log10(number)) - 5) if number > 0 else 1.0
    return f"{math.ceil(number / step - 1e-6) * step:.6g}{SHOWN[quantity]}"


def absolute(problem: Problem, quantity: str, limit: str | float) -> float:
    """The limit in bytes, operations or microseconds.

    ``limit``: "4.2ms", "8MB", "100G", or a fraction r as a number or text: ``all4 + r (all8 - all4)``, as HAWQ-V3's
    integer program has it, over the layers that the model leaves free.
    Raises BadInput: no number, another unit, a fraction outside 0 to 1, a quantity of which nothing is known.
    """
    if quantity not in problem.quantities:
        raise BadInput(f"--{quantity} {limit}: no {quantity} is known of the layers; give {MISSING[quantity]}")
    number, unit = parsed(quantity, limit)
    if unit:
        return number * UNITS[quantity][unit]
    least, most = (problem.quantities[quantity].at(problem.uniform(bits)) for bits in (4, 8))
    return least + number * (most - least)


def parsed(quantity: str, limit: str | float) -> tuple[float, str]:
    """Number and unit, which a fraction has not; BadInput as of :func:`absolute`, before anything is known."""
    option = f"--{quantity} {limit}"
    units = ", ".join(UNITS[quantity])
    found = VALUE.fullmatch(str(limit).strip())
    if not found or not math.isfinite(float(found[1])) or found[2] and found[2] not in UNITS[quantity]:
        raise BadInput(f"{option}: give a fraction from 0 to 1, or a number with one of the units {units}")
    number, unit = float(found[1]), found[2]
    if number > 1 and not unit:
        raise BadInput(f"{option}: a fraction is from 0 (all 4 bits) to 1 (all 8); for a value add its unit: {units}")
    return number, unit


MISSING = dict.fromkeys(LIMITED, "a table whose layers all have it") | {
    "latency": "--latency-profile FILE, or a table whose layers all have latency_ms"
}
