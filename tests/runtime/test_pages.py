"""Memory moved to huge pages: what it holds stays, and where the system gives none nothing happens."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from hawqtvm.runtime import load, pages
from hawqtvm.runtime import model as runtime_model
from hawqtvm.runtime.pages import SIZE, make_huge

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def huge_kilobytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))


def needs_huge_pages() -> None:
    release = tuple(map(int, Path("/proc/sys/kernel/osrelease").read_text().split("-")[0].split(".")[:2]))
    if not ENABLED.exists() or "[never]" in ENABLED.read_text() or release < (6, 1):
        pytest.skip("this system gives no huge pages at once")


def test_memory_becomes_huge_and_keeps_its_content():
    needs_huge_pages()
    # not numpy's own memory: it asks for huge pages by itself
    memory = mmap.mmap(-1, 8 * SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    array = np.frombuffer(memory, "uint8")
    array[:] = np.random.default_rng(0).integers(0, 256, 8 * SIZE, "uint8")
    kept = array.copy()
    before = huge_kilobytes()
    assert make_huge([array]) >= 7
    assert huge_kilobytes() >= before + 7 * SIZE // 1024
    np.testing.assert_array_equal(array, kept)


def test_neighbours_share_pages():
    block = np.zeros(4 * SIZE, "uint8")
    start = -block.ctypes.data % SIZE
    parts = [block[start + part : start + part + 1000] for part in range(0, SIZE, 100_000)]
    assert {page for part in parts for page in pages._pages(part)} == {parts[0].ctypes.data // SIZE}
    across = block[start + SIZE - 1 : start + SIZE + 1]
    assert len(pages._pages(across)) == 2


def test_what_is_not_mapped_is_left_alone(monkeypatch):
    monkeypatch.setattr(pages, "_pages", lambda array: range(1))  # the first megabytes, where nothing is
    assert make_huge([np.zeros(1)]) == 0


def test_loading_finds_what_the_kernels_touch(artifact, monkeypatch):
    found = []
    monkeypatch.setattr(runtime_model, "make_huge", found.extend)
    model = load(artifact)
    touched = {array.ctypes.data: array.nbytes for array in found}
    outputs = model.trace(np.zeros(model.input_shape, np.uint8))
    assert len(touched) > len(outputs)  # each kernel's constants, too
    assert sum(touched.values()) > max(stored.nbytes for stored in outputs.values())
