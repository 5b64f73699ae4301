"""CUDA kernels on the CPU, bit for bit, with checks of every access, barrier and warp collective."""

import ctypes
import math

import numpy as np

from hawqtvm.emulator.compiled import Launch, Library, Region, library, source_line
from hawqtvm.emulator.text import THREADS, Kernel, kernels
from hawqtvm.errors import BadInput, CheckFailed

SHARED = 227 * 1024  # most bytes that a block of any architecture may have


class Emulated:
    """The kernels of a CUDA text; each is compiled when it runs for the first time.  Not for two threads at once.

    ``checked``: whether memory accesses are checked.  Barriers and warp collectives always are.  BadInput where the
    text has no kernels, or one with parameters other than buffers of integers.
    """

    def __init__(self, source: str, checked: bool = True):
        self.checked, self.kernels = checked, kernels(source)

    def run(self, kernel: str, grid: tuple, block: tuple, arguments: dict[str, np.ndarray], shared: int = 0) -> None:
        """Run a grid of up to three extents, x first; ``arguments``, by the parameters' names, are changed in place.

        ``shared``: bytes of dynamic shared memory.  A read-only array may not be written.  CheckFailed names the
        kernel, block, thread and what went wrong, and leaves the arrays as they were.  BadInput where g++ is missing or
        does not take the text, or the arguments do not fit the kernel.
        """
        if kernel not in self.kernels:
            raise BadInput(f"no kernel {kernel} in the CUDA text, which has {', '.join(self.kernels)}")
        known = self.kernels[kernel]
        grid, block = (_three(extents, kernel) for extents in (grid, block))
        if math.prod(block) > min(known.most, THREADS):
            raise CheckFailed(f"{kernel}: blocks of {math.prod(block)} threads, but it was compiled for {known.most}")
        arrays = _bound(known, arguments)
        regions = _regions(known, arrays, shared)
        made = library(known.compiled, self.checked)
        entry = ctypes.cast(made.code.emulated, ctypes.c_void_p)
        extents = [(ctypes.c_uint * 3)(*three) for three in (grid, block)]
        launch = Launch(entry, regions, len(regions), *extents, self.checked)
        if not made.code.emulator_begin(ctypes.byref(launch)):
            raise BadInput(f"{kernel}: cannot reserve address space for {len(regions)} buffers: raise `ulimit -v`")
        try:
            places = [region.base for region in regions if not region.shared]
            for place, array in zip(places, arrays, strict=True):
                ctypes.memmove(place, np.ascontiguousarray(array).ctypes.data, array.nbytes)
            # a call a block, so that an interrupt is heard
            for number in range(math.prod(grid)):
                if not made.code.emulator_block(number):
                    raise CheckFailed(f"{kernel}: {_message(made, known)}")
            for place, array in zip(places, arrays, strict=True):
                if array.flags.writeable:
                    held = (ctypes.c_char * array.nbytes).from_address(place)
                    array[...] = np.frombuffer(held, array.dtype).reshape(array.shape)
        finally:
            made.code.emulator_end()


def _message(made: Library, kernel: Kernel) -> str:
    line = source_line(made.image, made.code.emulator_site(), kernel.source)
    return made.code.emulator_message().decode() + (f"; at: {line}" if line else "")


def _three(extents: tuple, kernel: str) -> tuple[int, int, int]:
    if not 1 <= len(extents) <= 3 or min(extents) < 1:
        raise BadInput(f"{kernel} cannot be launched with the extents {extents}: give one to three, of 1 or more")
    return (*extents, 1, 1)[:3]


def _bound(kernel: Kernel, arguments: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The arrays in the order of the kernel's parameters."""
    names = [parameter.name for parameter in kernel.parameters]
    given = {name.removesuffix("_ptr"): array for name, array in arguments.items()}
    if set(given) != set(names):
        raise BadInput(f"{kernel.name} takes {', '.join(names)}, not {', '.join(arguments)}")
    for parameter in kernel.parameters:
        array, width = given[parameter.name], parameter.dtype.itemsize
        # a buffer of bytes may be seen as one of words or vectors
        if array.dtype.kind not in "iu" or array.itemsize > width or array.nbytes % width:
            found = f"{array.dtype} {array.shape}"
            raise BadInput(f"{kernel.name} takes {parameter.name} as {parameter.dtype}, not {found}: convert it")
    return [given[name] for name in names]


def _regions(kernel: Kernel, arrays: list[np.ndarray], shared: int) -> ctypes.Array:
    """Shared arrays, ``shared`` bytes for a dynamic one, then parameters."""
    found = [Region(a.name.encode(), None, a.bytes or shared, a.granule, True, False) for a in kernel.shared]
    used = sum(region.size for region in found)
    if used > SHARED:
        raise CheckFailed(f"{kernel.name}: {used} bytes of shared memory, more than any GPU has")
    for parameter, array in zip(kernel.parameters, arrays, strict=True):
        constant = parameter.constant or not array.flags.writeable
        found.append(Region(parameter.name.encode(), None, array.nbytes, array.itemsize, False, constant))
    return (Region * len(found))(*found)
