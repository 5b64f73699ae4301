"""Kernels are compiled for the GPU that was asked for, though TVM finds another one."""

import base64
import os
from contextlib import ExitStack

import pytest
import tvm
import tvm_ffi
from gpu import T4

from hawqtvm.emulator.lowered import lower
from hawqtvm.qnn.formats import Format
from schedules.cuda import nvcc, pool
from schedules.lowering import FALLBACK, compiled, cuda_text_as, no_gpu
from schedules.workload import MaxPool2d
from tests.needs import needs_nvcc

# what TVM's runtime for CUDA brings, where a driver is, and what TVM compiles with by itself
ON_A_GPU = ("ffi.Module.create.cuda", "tvm_callback_cuda_compile")


@pytest.fixture
def asked(monkeypatch):
    """What TVM asked of a GPU of sm_90."""
    found: list[str] = []

    def answers(question: str, answer) -> property:
        return property(lambda device: found.append(question) or answer)

    monkeypatch.setattr(tvm.runtime.Device, "exist", answers("exist", True))
    monkeypatch.setattr(tvm.runtime.Device, "compute_version", answers("compute_version", "9.0"))
    registry = tvm_ffi.registry
    before = {name: registry.get_global_func(name, allow_missing=True) for name in ON_A_GPU}

    def recorded(name: str):
        def function(*arguments):
            found.append(name)
            raise RuntimeError(f"{name}: not for the asked GPU")

        return function

    for name in ON_A_GPU:
        registry.register_global_func(name, recorded(name), override=True)
    yield found
    for name, function in before.items():
        registry.remove_global_func(name)
        if function is not None:
            registry.register_global_func(name, function)


@pytest.fixture
def kernel():
    workload = MaxPool2d((8, 32, 4, 4), Format("uint8", "HWNC"), (3, 3), (1, 1), (1,) * 4, (1, 1))
    return pool.build(pool.default(workload, T4, 1), workload, T4)


def test_the_text_is_the_same(kernel, asked):
    lowered = lower(kernel, T4.tvm)
    assert "__global__" in lowered.source
    assert asked == []


@pytest.mark.parametrize("before", [None, "0"])
def test_threads_are_inside_at_once(monkeypatch, before):
    monkeypatch.delenv(FALLBACK, raising=False)
    if before is not None:
        monkeypatch.setenv(FALLBACK, before)
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(no_gpu())
        second.enter_context(no_gpu())
        first.close()
        assert os.environ[FALLBACK] == "1"
    assert os.environ.get(FALLBACK) == before


@needs_nvcc
def test_the_binary_is_the_same(kernel, asked):
    binaries = []

    def text_as(text: str) -> str:
        binaries.append(nvcc.library_text(text, T4.arch))
        return binaries[-1]

    with cuda_text_as(text_as):
        compiled(kernel, T4.tvm)
    assert asked == []
    flags = int.from_bytes(base64.b64decode(binaries[0])[48:52], "little")
    assert flags >> 8 & 0xFF == 75
