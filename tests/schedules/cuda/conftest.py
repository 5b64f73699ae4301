"""What the tests of kernels for a GPU need."""

import shutil

import pytest


@pytest.fixture(autouse=True, scope="session")
def needs_compiler():
    """Skips where nothing compiles the emulator."""
    if shutil.which("g++") is None:
        pytest.skip("no g++, with which the emulator runs kernels")
