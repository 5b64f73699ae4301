"""What the emulator's tests need of the machine."""

import shutil

import pytest


@pytest.fixture(autouse=True, scope="session")
def needs_compiler():
    """Skips where nothing compiles the kernels."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ on this machine")
