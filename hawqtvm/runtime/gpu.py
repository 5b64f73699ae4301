"""The NVIDIA GPUs of this machine, known before any compiled code is loaded."""

import functools
from dataclasses import dataclass

from hawqtvm.errors import BadInput
from hawqtvm.runner import driver


@dataclass(frozen=True)
class Gpu:
    """``index``: among those that CUDA shows to this process.  ``arch``: as nvcc names it, "sm_75".  ``sms``: its
    streaming multiprocessors."""

    index: int
    name: str
    arch: str
    sms: int


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """Those that the driver shows to this process; none where there is no driver."""
    try:
        found = driver.devices()
    except driver.DriverError:
        return ()
    return tuple(Gpu(index, facts.name, facts.arch, facts.sms) for index, facts in enumerate(found))


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
