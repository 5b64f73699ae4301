"""What all tests share."""

import functools
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def needs_vnni():
    """Skips where the processor cannot run the kernels under test."""
    if "avx512_vnni" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX512-VNNI")


@pytest.fixture(scope="session")
def nets():
    """Function: a network of ``tests.nets.NETS`` by name, quantized once; not to be changed."""
    from tests.nets import quantized_net  # torch takes a second

    return functools.cache(quantized_net)


@pytest.fixture(scope="session")
def vgg(nets):
    return nets("vgg")
