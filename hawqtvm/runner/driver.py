"""NVIDIA's driver through ctypes: what it takes to launch and time kernels, and nothing else."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from ctypes import byref, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from dataclasses import dataclass

LIBRARY = "libcuda.so.1"
SMS, L2_BYTES, MAJOR, MINOR = 16, 38, 75, 76  # CU_DEVICE_ATTRIBUTE_...
DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
WITHOUT_ASKING = 48 * 1024  # bytes of shared memory
NOT_READY = 600  # CUDA_ERROR_NOT_READY


class DriverError(Exception):
    """What the driver refused, by its own name."""


@dataclass(frozen=True)
class Facts:
    """``arch``: as nvcc names it, "sm_75".  ``sms``: streaming multiprocessors; ``l2_bytes``: of second-level cache."""

    name: str
    arch: str
    sms: int
    l2_bytes: int

    @property
    def folder(self) -> str:
        """The name as that of a folder: "tesla-t4"."""
        return folder(self.name)


def folder(name: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


class Driver:
    """The driver; addresses on the device are plain integers.  DriverError where there is none, or it does not start.

    Calls other than those about devices need :meth:`use` before.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise DriverError(f"no NVIDIA driver on this machine ({error})") from None
        self._call("cuInit", c_uint(0))

    def count(self) -> int:
        """Devices that the driver shows to this process."""
        count = c_int()
        self._call("cuDeviceGetCount", byref(count))
        return count.value

    def facts(self, index: int) -> Facts:
        device, name = c_int(), ctypes.create_string_buffer(256)
        self._call("cuDeviceGet", byref(device), c_int(index))
        self._call("cuDeviceGetName", name, c_int(len(name)), device)
        major, minor, sms, l2 = (self._attribute(kind, device) for kind in (MAJOR, MINOR, SMS, L2_BYTES))
        return Facts(name.value.decode(), f"sm_{major}{minor}", sms, l2)

    def version(self) -> str:
        """The newest CUDA that the driver knows, such as "12.4"."""
        version = c_int()
        self._call("cuDriverGetVersion", byref(version))
        return f"{version.value // 1000}.{version.value % 1000 // 10}"

    def use(self, index: int) -> None:
        """Makes the device's primary context this thread's."""
        device, context = c_int(), c_void_p()
        self._call("cuDeviceGet", byref(device), c_int(index))
        self._call("cuDevicePrimaryCtxRetain", byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def free_bytes(self) -> int:
        free, total = c_size_t(), c_size_t()
        self._call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value

    def allocate(self, size: int) -> int:
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), c_size_t(size))
        return address.value

    def write(self, address: int, data: bytes) -> None:
        self._call("cuMemcpyHtoD_v2", c_uint64(address), data, c_size_t(len(data)))

    def read(self, address: int, size: int) -> bytes:
        data = ctypes.create_string_buffer(size)
        self._call("cuMemcpyDtoH_v2", data, c_uint64(address), c_size_t(size))
        return data.raw

    def copy(self, target: int, source: int, size: int) -> None:
        self._call("cuMemcpyDtoD_v2", c_uint64(target), c_uint64(source), c_size_t(size))

    def fill(self, address: int, byte: int, size: int) -> None:
        """Is only begun when this returns."""
        self._call("cuMemsetD8Async", c_uint64(address), ctypes.c_ubyte(byte), c_size_t(size), c_void_p())

    def function(self, image: bytes, name: str, shared: int) -> c_void_p:
        """A kernel of a cubin, for launches with ``shared`` bytes of dynamic shared memory."""
        module, function = c_void_p(), c_void_p()
        self._call("cuModuleLoadData", byref(module), image)
        self._call("cuModuleGetFunction", byref(function), module, name.encode())
        if shared > WITHOUT_ASKING:
            self._call("cuFuncSetAttribute", function, c_int(DYNAMIC_SHARED), c_int(shared))
        return function

    def launch(
        self, function: c_void_p, grid: Sequence[int], block: Sequence[int], shared: int, addresses: Sequence[int]
    ) -> Callable[[], None]:
        """What begins a kernel whose parameters are addresses; grid and block are x, y, z."""
        values = [c_uint64(address) for address in addresses]
        parameters = (c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        extents = [c_uint(extent) for extent in (*grid, *block)]
        arguments = (function, *extents, c_uint(shared), c_void_p(), parameters, c_void_p())

        def begin(kept: object = values) -> None:  # the driver reads them at every launch
            self._call("cuLaunchKernel", *arguments)

        return begin

    def wait(self) -> None:
        """Until all that was begun has ended; what went wrong in a kernel is told here."""
        self._call("cuCtxSynchronize")

    def event(self) -> c_void_p:
        event = c_void_p()
        self._call("cuEventCreate", byref(event), c_uint(0))
        return event

    def record(self, event: c_void_p) -> None:
        """Marks the event once all that was begun before has ended."""
        self._call("cuEventRecord", event, c_void_p())

    def passed(self, event: c_void_p) -> bool:
        code = self._library.cuEventQuery(event)
        if code not in (0, NOT_READY):
            self._raise("cuEventQuery", code)
        return code == 0

    def microseconds(self, start: c_void_p, stop: c_void_p) -> float:
        """Between two events that have passed."""
        milliseconds = c_float()
        self._call("cuEventElapsedTime", byref(milliseconds), start, stop)
        return milliseconds.value * 1e3

    def _attribute(self, kind: int, device: c_int) -> int:
        value = c_int()
        self._call("cuDeviceGetAttribute", byref(value), c_int(kind), device)
        return value.value

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            self._raise(name, code)

    def _raise(self, name: str, code: int) -> None:
        text = ctypes.c_char_p()
        self._library.cuGetErrorName(c_int(code), byref(text))
        raise DriverError(f"{name}: {text.value.decode() if text.value else code}")


def devices() -> list[Facts]:
    """Those that the driver shows to this process; DriverError as :class:`Driver`."""
    driver = Driver()
    return [driver.facts(index) for index in range(driver.count())]


def find(index: int | None, arch: str) -> int:
    """The device to use: as asked, or the first of the architecture; DriverError where it is of another."""
    found = devices()
    if index is None:
        index = next((at for at, facts in enumerate(found) if facts.arch == arch), None)
    if index is not None and 0 <= index < len(found) and found[index].arch == arch:
        return index
    present = ", ".join(f"{at}: {each.name} ({each.arch})" for at, each in enumerate(found)) or "none"
    which = "a device" if index is None else f"device {index}"
    raise DriverError(f"{which} of {arch} is needed, this machine has {present}")
