"""The NVIDIA GPUs of this machine, known before any compiled code is loaded."""

import ctypes
import functools
from dataclasses import dataclass

from hawqtvm.errors import BadInput

DRIVER = "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...


@dataclass(frozen=True)
class Gpu:
    """``index``: among those that CUDA shows to this process.  ``arch``: as nvcc names it, "sm_75"."""

    index: int
    name: str
    arch: str


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """Those that the driver shows to this process; none where there is no driver."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_gpu(driver, index) for index in range(count.value))


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    capability = [ctypes.c_int(), ctypes.c_int()]
    for value, attribute in zip(capability, (MAJOR, MINOR), strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return Gpu(index, name.value.decode(), "sm_" + "".join(str(value.value) for value in capability))


def find(arch: str) -> Gpu | None:
    """The first GPU of an architecture."""
    return next((gpu for gpu in gpus() if gpu.arch == arch), None)


def require(arch: str, what: str) -> Gpu:
    """A GPU that runs what was compiled for ``arch``; BadInput where this machine has none."""
    gpu = find(arch)
    if gpu is None:
        present = ", ".join(f"{gpu.name} ({gpu.arch})" for gpu in gpus()) or "none"
        raise BadInput(f"{what} needs an NVIDIA GPU of {arch}, this machine has {present}: deploy it for this machine")
    return gpu
