"""A stand-in for NVIDIA's driver, and a bundle for it."""

import shutil

import pytest

from hawqtvm.bundle.pack import pack
from schedules.cuda import nvcc
from schedules.target import find_target
from tests.bundle import standin
from tests.bundle.workloads import WORKLOADS


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """The folder in which the driver's library is."""
    if shutil.which("g++") is None:
        pytest.skip("no g++, with which the stand-in for the driver and the emulator are compiled")
    return standin.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def emulated(driver):
    """Cubins are what the stand-in runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvcc, "cubin", standin.cubin)
        patch.setattr(nvcc, "find_nvcc", lambda: None)
        yield


@pytest.fixture(scope="session")
def small(emulated, tmp_path_factory):
    """A bundle of two candidates for each of ``WORKLOADS``; not to be changed."""
    path = tmp_path_factory.mktemp("small") / "small.pyz"
    packed = pack(path, "small workloads", WORKLOADS, find_target("sm_75"), 2)
    assert packed.candidates == 2 * len(WORKLOADS) and not packed.failed
    return path
