"""CUDA text -> a library that runs it on this machine, by g++."""

import ctypes
import functools
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from hawqtvm.errors import BadInput

COMMON = ("-std=c++17", "-march=native", "-fPIC", "-fvisibility=hidden", "-fwrapv", "-fno-strict-aliasing", "-w")
# Accesses stay as the text has them: none are merged, vectors are not taken apart, and calls return to their line.
KEPT = ("-fno-tree-sra", "-fno-tree-loop-distribute-patterns", "-fno-optimize-sibling-calls")
TEXT = ("-O2", "-g1", "-DHAWQTVM_EMULATOR", *KEPT)
# ThreadSanitizer's calls before each access are what the checks hang on; its own library is not linked.
CHECKS = ("-fsanitize=thread", "-fsanitize=bounds", "-fno-sanitize-recover=bounds")
LINE = 160  # characters of a line of the text in a message


class Region(ctypes.Structure):
    """A buffer or shared array as native/memory.h has it."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("size", ctypes.c_uint64),
        ("granule", ctypes.c_uint),
        ("shared", ctypes.c_bool),
        ("constant", ctypes.c_bool),
    ]


class Launch(ctypes.Structure):
    """As native/runtime.cpp has it."""

    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("regions", ctypes.POINTER(Region)),
        ("count", ctypes.c_uint),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("checked", ctypes.c_bool),
    ]


@dataclass(frozen=True)
class Library:
    """``code``: the loaded library, ``image`` its bytes."""

    code: ctypes.CDLL
    image: bytes


@functools.cache
def library(text: str, checked: bool) -> Library:
    """A :attr:`Kernel.compiled`; BadInput where g++ is missing or does not take it.  No file outlives the call."""
    with tempfile.TemporaryDirectory(prefix="hawqtvm-") as place:
        cpp, kernels, runtime, out = (Path(place) / name for name in ("text.cpp", "text.o", "runtime.o", "text.so"))
        cpp.write_text(text)
        runtime.write_bytes(_runtime())
        with resources.as_file(resources.files("hawqtvm.emulator") / "native") as native:
            flags = [*COMMON, *TEXT, *(CHECKS if checked else ()), f"-I{native}"]
            _gpp(place, [*flags, "-c", str(cpp), "-o", str(kernels)])
        _gpp(place, ["-shared", "-o", str(out), str(kernels), str(runtime)])
        code = ctypes.CDLL(str(out))
        code.emulator_begin.restype = code.emulator_block.restype = ctypes.c_bool
        code.emulator_message.restype = ctypes.c_char_p
        code.emulator_site.restype = ctypes.c_uint64
        return Library(code, out.read_bytes())


@functools.cache
def _runtime() -> bytes:
    """The object file of native/runtime.cpp."""
    with (
        tempfile.TemporaryDirectory(prefix="hawqtvm-") as place,
        resources.as_file(resources.files("hawqtvm.emulator") / "native") as native,
    ):
        out = Path(place) / "runtime.o"
        _gpp(place, [*COMMON, "-O3", "-c", str(native / "runtime.cpp"), "-o", str(out)])
        return out.read_bytes()


def _gpp(place: str, arguments: list[str]) -> None:
    """Runs g++, whose own temporary files go to ``place``, too: it leaves them there when it is killed."""
    try:
        done = subprocess.run(["g++", *arguments], capture_output=True, text=True, env=os.environ | {"TMPDIR": place})
    except FileNotFoundError:
        raise BadInput("no g++ found, with which the emulator compiles kernels: install g++") from None
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:LINE])
        remedy = "give a device function with asm or an intrinsic a branch for HAWQTVM_EMULATOR"
        raise BadInput(f"g++ does not take the CUDA text ({first.strip()}): {remedy}")


def source_line(image: bytes, site: int, source: str) -> str:
    """The line of the text in which the instruction at ``site`` of the library lies, or "" where none is known."""
    with tempfile.TemporaryDirectory(prefix="hawqtvm-") as place:
        path = Path(place) / "text.so"
        path.write_bytes(image)
        try:
            # the call before the address to which it returns; inlined functions' callers last
            command = ["addr2line", "-i", "-e", str(path), hex(site - 1)]
            found = subprocess.run(command, capture_output=True, text=True).stdout
        except FileNotFoundError:
            return ""
    text = source.splitlines()
    lines = [int(number) for number in re.findall(r"text\.cpp:(\d+)", found)]
    lines = [line for line in lines if line <= len(text)]  # the entry lies past the text
    return text[lines[-1] - 1].strip()[:LINE] if lines else ""
