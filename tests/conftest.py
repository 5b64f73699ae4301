"""What all tests share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def needs_vnni():
    """Skips where the processor cannot run the kernels under test."""
    if "avx512_vnni" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX512-VNNI")
