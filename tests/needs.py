"""What tests need of a machine, and why they are skipped where it is missing."""

import shutil

import pytest

from hawqtvm.runtime import cpu
from schedules.cuda import nvcc

HAS_COMPILER = shutil.which("g++") is not None
NO_COMPILER = "no g++, which compiles what runs kernels in emulation"
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason=NO_COMPILER)
needs_nvcc = pytest.mark.skipif(nvcc.find_tool("nvcc") is None, reason="no nvcc, which compiles for NVIDIA GPUs")


def require_compiler() -> None:
    """Of a fixture: skips the tests that use it."""
    if not HAS_COMPILER:
        pytest.skip(NO_COMPILER)


def needs_level(target) -> None:
    """Skips where this processor lacks the target's features."""
    if not cpu.cpu_features().issuperset(target.features):
        pytest.skip(f"this processor cannot run {target.name}")
