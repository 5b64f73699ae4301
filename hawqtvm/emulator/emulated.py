"""CUDA kernels on the CPU, bit for bit, with checks of every access, barrier and warp collective."""

import ctypes
import math

import numpy as np

from hawqtvm.emulator.compiled import Launch, Region, library, source_line
from hawqtvm.emulator.text import Kernel, kernels
from hawqtvm.errors import BadInput, CheckFailed

THREADS, SHARED = 1024, 227 * 1024  # most that a block of any architecture may have


class Emulated:
    """The kernels of a CUDA text.

    ``checked``: whether memory accesses are checked.  Barriers and warp collectives always are.  BadInput where g++ is
    missing or does not take the text.
    """

    def __init__(self, source: str, checked: bool = True):
        self.source, self.checked = source, checked
        self.kernels = kernels(source)
        self._library = library(source, checked)

    def run(self, kernel: str, grid: tuple, block: tuple, arguments: dict[str, np.ndarray], shared: int = 0) -> None:
        """Run a grid of up to three extents, x first; ``arguments``, by the parameters' names, are changed in place.

        ``shared``: bytes of the dynamic shared memory.  A read-only array may not be written.  CheckFailed names the
        kernel, block, thread and what went wrong, and leaves the arrays as they were; BadInput where the arguments do
        not fit the kernel.
        """
        code = self._library.code
        if kernel not in self.kernels:
            raise BadInput(f"no kernel {kernel} in the CUDA text, which has {', '.join(self.kernels)}")
        known = self.kernels[kernel]
        grid, block = (_three(extents, kernel) for extents in (grid, block))
        if math.prod(block) > min(known.most, THREADS):
            raise CheckFailed(f"{kernel}: blocks of {math.prod(block)} threads, but it was compiled for {known.most}")
        arrays = _bound(known, arguments)
        # every run has its own copies, so that a kernel that fails has changed nothing
        copies = [np.array(array, order="C") for array in arrays]
        regions = [Region(a.name.encode(), None, a.bytes or shared, a.granule, True) for a in self._library.shared]
        if sum(region.size for region in regions) > SHARED:
            raise CheckFailed(f"{kernel}: {sum(r.size for r in regions)} bytes of shared memory, more than any GPU has")
        for parameter, array in zip(known.parameters, arrays, strict=True):
            constant = parameter.constant or not array.flags.writeable
            regions.append(Region(parameter.name.encode(), None, array.nbytes, array.itemsize, False, constant))
        described = (Region * len(regions))(*regions)
        launch = Launch(
            ctypes.cast(getattr(code, f"emulated_{kernel}"), ctypes.c_void_p),
            described,
            len(regions),
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            self.checked,
        )
        if not code.emulator_begin(ctypes.byref(launch)):
            raise BadInput(f"{kernel}: cannot reserve address space for {len(regions)} buffers: raise `ulimit -v`")
        try:
            places = [region.base for region in described[len(self._library.shared) :]]
            for place, copy in zip(places, copies, strict=True):
                ctypes.memmove(place, copy.ctypes.data, copy.nbytes)
            # a call a block, so that an interrupt is heard
            for number in range(math.prod(grid)):
                if not code.emulator_block(number):
                    raise CheckFailed(self._message(kernel))
            for place, copy, array in zip(places, copies, arrays, strict=True):
                if array.flags.writeable:
                    ctypes.memmove(copy.ctypes.data, place, copy.nbytes)
                    array[...] = copy
        finally:
            code.emulator_end()

    def _message(self, kernel: str) -> str:
        code = self._library.code
        line = source_line(self._library.image, code.emulator_site(), self.source)
        return f"{kernel}: {code.emulator_message().decode()}" + (f"; at: {line}" if line else "")


def _three(extents: tuple, kernel: str) -> tuple[int, int, int]:
    if not 1 <= len(extents) <= 3 or min(extents) < 1:
        raise BadInput(f"{kernel} cannot be launched with the extents {extents}: give one to three, of 1 or more")
    return (*extents, 1, 1)[:3]


def _bound(kernel: Kernel, arguments: dict[str, np.ndarray]) -> list[np.ndarray]:
    names = [parameter.name for parameter in kernel.parameters]
    given = {name.removesuffix("_ptr"): array for name, array in arguments.items()}
    if set(given) != set(names):
        raise BadInput(f"{kernel.name} takes {', '.join(names)}, not {', '.join(arguments)}")
    for parameter in kernel.parameters:
        if given[parameter.name].dtype != parameter.dtype:
            found = given[parameter.name].dtype
            raise BadInput(f"{kernel.name} takes {parameter.name} as {parameter.dtype}, not {found}: convert it")
    return [given[name] for name in names]
