"""The machine as benchmark reports name it."""

import os
import platform
from pathlib import Path

ISA = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


def machine() -> dict:
    """The CPU's name, its instruction sets that matter here, and the cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    family = ", ".join(f"{key} {facts[key]}" for key in ("cpu family", "model", "stepping") if key in facts)
    return {
        "cpu": facts.get("model name", platform.machine()) + f" ({family})" * bool(family),
        "isa": [name for name in ISA if name in flags],
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
    }
