"""A stand-in for NVIDIA's driver, and a bundle for it."""

import json

import pytest

from hawqtvm.bundle.pack import pack
from hawqtvm.runner.bundle import Bundle
from schedules.cuda import nvcc
from schedules.target import find_target
from tests.bundle import standin
from tests.bundle.workloads import FEW, WORKLOADS
from tests.needs import require_compiler


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """The folder in which the driver's library is."""
    require_compiler()
    return standin.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def no_nvcc(monkeypatch):
    """None is looked for."""
    monkeypatch.setattr(nvcc, "find_nvcc", lambda: None)


@pytest.fixture(scope="session")
def small(driver, tmp_path_factory):
    """A bundle of two candidates for each of ``WORKLOADS``, whose cubins the stand-in runs; not to be changed."""
    path = tmp_path_factory.mktemp("small") / "small.pyz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvcc, "cubin", standin.cubin)
        patch.setattr(nvcc, "find_nvcc", lambda: None)
        packed = pack(path, "small workloads", WORKLOADS, find_target("sm_75"), 2)
    assert packed.candidates == 2 * len(WORKLOADS) and not packed.failed
    return path


@pytest.fixture(scope="session")
def few(small, tmp_path_factory):
    """The first ``FEW`` workloads of the small bundle."""
    about = Bundle(str(small)).about
    about["workloads"] = about["workloads"][:FEW]
    path = tmp_path_factory.mktemp("few") / "few.pyz"
    return standin.replaced(small, path, {"bundle.json": json.dumps(about).encode()})
