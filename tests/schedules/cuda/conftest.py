"""What the tests of kernels for a GPU need."""

import pytest

from tests.needs import require_compiler


@pytest.fixture(autouse=True, scope="session")
def needs_compiler():
    """Skips where nothing compiles the emulator."""
    require_compiler()
