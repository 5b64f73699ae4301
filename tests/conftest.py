"""What all tests share."""

import functools

import pytest


@pytest.fixture(scope="session")
def needs_vnni():
    """Skips where the processor cannot run the kernels under test."""
    from schedules.target import find_target
    from tests.needs import needs_level  # TVM takes a second

    needs_level(find_target("avx512-vnni"))


@pytest.fixture(scope="session")
def nets():
    """Function: a network of ``tests.nets.NETS`` by name, quantized once; not to be changed."""
    from tests.nets import quantized_net  # torch takes a second

    return functools.cache(quantized_net)


@pytest.fixture(scope="session")
def vgg(nets):
    return nets("vgg")
