"""What the emulator's tests need of the machine."""

import pytest

from tests.needs import require_compiler


@pytest.fixture(autouse=True, scope="session")
def needs_compiler():
    """Skips where nothing compiles the kernels."""
    require_compiler()
