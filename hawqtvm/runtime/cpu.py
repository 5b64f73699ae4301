"""What this machine's CPU can run, known before any compiled code is loaded."""

import os
from pathlib import Path

from hawqtvm.errors import BadInput

CPUINFO = Path("/proc/cpuinfo")


def machine() -> str:
    """The machine's architecture: "x86_64", "aarch64", ..."""
    return os.uname().machine


def cpu_features() -> frozenset[str]:
    """Names of the CPU's features as Linux gives them ("avx2", "avx512_vnni", ...); empty where it does not say."""
    try:
        with CPUINFO.open() as lines:
            # stops at the first CPU: the kernel takes its time to describe a hundred of them
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(flags.partition(":")[2].split())


def cpu_name() -> str:
    """The processor's model name as Linux gives it, or the architecture where it does not."""
    try:
        with CPUINFO.open() as lines:
            line = next((line for line in lines if line.startswith("model name")), "")
    except OSError:
        line = ""
    return line.partition(":")[2].strip() or machine()


def require(features: list[str], what: str) -> None:
    """BadInput unless this is an x86-64 machine with all ``features``; the alternative is an illegal instruction."""
    if machine() not in ("x86_64", "AMD64"):
        raise BadInput(f"{what} is built for x86-64, this machine is {machine()}: run it on an x86-64 machine")
    missing = sorted(set(features) - cpu_features())
    if missing:
        raise BadInput(f"{what} needs a CPU with {', '.join(missing)}, which this one lacks: deploy it for this CPU")
