"""What this machine's CPU can run, known before any compiled code is loaded."""

import os
from collections.abc import Iterable
from pathlib import Path

from hawqtvm.errors import BadInput

CPUINFO = Path("/proc/cpuinfo")


def machine() -> str:
    """The machine's architecture: "x86_64", "aarch64", ..."""
    return os.uname().machine


def cpu_features() -> frozenset[str]:
    """Names of the CPU's features as Linux gives them ("avx2", "avx512_vnni", ...); empty where it does not say."""
    return frozenset(_this_cpu("flags").split())


def cpu_name() -> str:
    """The processor's model name as Linux gives it, or the architecture where it does not."""
    return _this_cpu("model name") or machine()


def cpuinfo(lines: Iterable[str], field: str) -> str:
    """A field of the first CPU in the lines of a /proc/cpuinfo; empty where it is not there."""
    # stops at the first CPU: the kernel takes its time to describe a hundred of them
    return next((line for line in lines if line.startswith(field)), "").partition(":")[2].strip()


def _this_cpu(field: str) -> str:
    try:
        with CPUINFO.open() as lines:
            return cpuinfo(lines, field)
    except OSError:
        return ""


def require(features: list[str], what: str) -> None:
    """BadInput unless this is an x86-64 machine with all ``features``; the alternative is an illegal instruction."""
    if machine() not in ("x86_64", "AMD64"):
        raise BadInput(f"{what} is built for x86-64, this machine is {machine()}: run it on an x86-64 machine")
    missing = sorted(set(features) - cpu_features())
    if missing:
        raise BadInput(f"{what} needs a CPU with {', '.join(missing)}, which this one lacks: deploy it for this CPU")
