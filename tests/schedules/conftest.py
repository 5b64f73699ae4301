"""The levels that schedules in x86 vectors are written for."""

import pytest
from levels import LEVELS, runs


@pytest.fixture(scope="session", params=LEVELS, ids=lambda target: target.name)
def level(request):
    """Each level that this processor can run; skips the others."""
    if not runs(request.param):
        pytest.skip(f"this processor cannot run {request.param.name}")
    return request.param
