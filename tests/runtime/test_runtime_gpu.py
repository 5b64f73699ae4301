"""Artifacts for a GPU: which machine may run them, and how the runtime moves tensors to a device and back.

There need not be a GPU: the processor stands for one, which the same functions of TVM copy to and from.
"""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_artifact import SHAPE, reference, write_manifest

from hawqtvm.errors import BadInput
from hawqtvm.runtime import engine, gpu, load
from hawqtvm.runtime.gpu import Gpu

T4, L4 = Gpu(0, "Tesla T4", "sm_75", 40), Gpu(1, "NVIDIA L4", "sm_89", 58)


@pytest.fixture
def for_t4(artifact):
    write_manifest(artifact, target={"name": "nvidia/nvidia-t4", "arch": "sm_75", "features": ["sse2"]})
    return artifact


@pytest.mark.parametrize(("present", "named"), [((), "none"), ((L4,), r"NVIDIA L4 \(sm_89\)")])
def test_another_gpu_or_none_is_refused_in_one_line(for_t4, monkeypatch, present, named):
    monkeypatch.setattr(gpu, "gpus", lambda: present)
    monkeypatch.setattr(engine.Program, "__init__", lambda *_: pytest.fail("opened"))
    with pytest.raises(BadInput, match=f"needs an NVIDIA GPU of sm_75, this machine has {named}: deploy") as caught:
        load(for_t4)
    assert "\n" not in str(caught.value)


def test_the_gpu_of_the_architecture_is_found_among_others(monkeypatch):
    monkeypatch.setattr(gpu, "gpus", lambda: (L4, T4))
    assert gpu.find("sm_75") == gpu.require("sm_75", "it") == T4
    assert gpu.find("sm_80") is None


def driver_with(found: list[tuple[bytes, int, int]], started: int = 0):
    """NVIDIA's driver, as far as it is asked: names and compute capabilities of its GPUs, and what cuInit answers."""

    def put(pointer, value: int) -> int:
        pointer._obj.value = value
        return 0

    def name(buffer, size, device) -> None:
        buffer.value = found[device.value][0]

    def attribute(value, kind, device) -> int:
        _, major, minor = found[device.value]
        return put(value, {75: major, 76: minor}.get(kind.value, 40))

    return SimpleNamespace(
        cuInit=lambda flags: started,
        cuDeviceGetCount=lambda count: put(count, len(found)),
        cuDeviceGet=lambda device, index: put(device, index.value),
        cuDeviceGetName=name,
        cuDeviceGetAttribute=attribute,
        cuGetErrorName=lambda code, name: 1,
    )


@pytest.fixture
def driver(monkeypatch):
    """Function: puts a driver, or what stands for it, in the place of libcuda."""
    gpu.gpus.cache_clear()
    yield lambda loaded: monkeypatch.setattr(ctypes, "CDLL", loaded)
    gpu.gpus.cache_clear()


def test_gpus_as_the_driver_has_them(driver):
    driver(lambda name: driver_with([(b"NVIDIA L4", 8, 9), (b"Tesla T4", 7, 5)]))
    assert gpu.gpus() == (Gpu(0, "NVIDIA L4", "sm_89", 40), Gpu(1, "Tesla T4", "sm_75", 40))


def test_no_driver_and_none_that_starts(driver):
    def absent(name):
        raise OSError(name)

    driver(absent)
    assert gpu.gpus() == ()
    gpu.gpus.cache_clear()
    driver(lambda name: driver_with([(b"Tesla T4", 7, 5)], started=100))
    assert gpu.gpus() == ()


def test_runs_on_a_device(for_t4, monkeypatch, codes):
    monkeypatch.setattr(gpu, "gpus", lambda: (T4,))
    monkeypatch.setattr(engine, "CUDA", engine.CPU)
    monkeypatch.setattr(engine, "cuda_runtime", lambda: None)
    model = load(for_t4)
    assert isinstance(model._memory, engine.GpuMemory)
    np.testing.assert_array_equal(model(codes), reference(codes))
    images = ((codes.astype("float32") - 10) / 2).astype("float32")
    np.testing.assert_array_equal(model(images), reference(codes))
    np.testing.assert_array_equal(model._memory.array(model.starter(codes)()), reference(codes))
    seen = model.trace(codes)
    np.testing.assert_array_equal(seen["scale"], codes * np.uint8(3))
    np.testing.assert_array_equal(seen["total"], reference(codes))
    assert set(model.profile(codes, 2)) == {"scale", "total"} and len(model.measure(3, 1)) == 3


def test_a_copy_of_the_device_is_its_own(monkeypatch):
    monkeypatch.setattr(engine, "CUDA", engine.CPU)
    monkeypatch.setattr(engine, "cuda_runtime", lambda: None)
    memory = engine.GpuMemory(0)
    array = np.arange(np.prod(SHAPE), dtype="int16").reshape(SHAPE)
    tensor = memory.tensor(array)
    wanted = array.copy()
    array[...] = 0
    memory.wait()
    np.testing.assert_array_equal(memory.array(tensor), wanted)
