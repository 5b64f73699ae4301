"""Huge pages under what kernels touch: megabytes in each call, and a core knows where few 4 KB pages are."""

import ctypes
from collections.abc import Iterable

import numpy as np

SIZE = 2**21  # bytes of a huge page on x86-64
HUGEPAGE, COLLAPSE = 14, 25  # madvise: when the kernel finds the time; now, since Linux 6.1


def make_huge(arrays: Iterable[np.ndarray]) -> int:
    """Moves the memory under the arrays to huge pages; the number of them, 0 where the system gives none.

    Arrays of less than a page move with their neighbours in memory.
    """
    pages = {page for array in arrays for page in _pages(array)}
    return sum(_advised(page * SIZE) for page in pages)


def _pages(array: np.ndarray) -> range:
    first = array.ctypes.data
    return range(first // SIZE, -(-(first + array.nbytes) // SIZE))


def _advised(address: int) -> bool:
    """Whether the page is huge now.  What is mapped there only in part, or not from memory, stays as it is."""
    madvise = ctypes.CDLL(None).madvise
    for advice in (HUGEPAGE, COLLAPSE):
        failed = madvise(ctypes.c_void_p(address), ctypes.c_size_t(SIZE), advice)
    return not failed
