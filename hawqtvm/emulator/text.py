"""What the emulator must know of CUDA text, and the little in which it changes it for g++."""

import re
from dataclasses import dataclass

import numpy as np

from hawqtvm.errors import BadInput

TYPES = {
    "char": "int8",
    "signed char": "int8",
    "int8_t": "int8",
    "uchar": "uint8",
    "unsigned char": "uint8",
    "uint8_t": "uint8",
    "short": "int16",
    "int16_t": "int16",
    "ushort": "uint16",
    "unsigned short": "uint16",
    "uint16_t": "uint16",
    "int": "int32",
    "int32_t": "int32",
    "uint": "uint32",
    "unsigned": "uint32",
    "unsigned int": "uint32",
    "uint32_t": "uint32",
    "int64_t": "int64",
    "long long": "int64",
    "uint64_t": "uint64",
}
WORD = 4  # bytes

_KERNEL = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\((?P<most>\d+)[^)]*\)\s*)?(?P<name>\w+)\((?P<parameters>[^)]*)\)\s*\{'
)
_SHARED = re.compile(
    r"(?P<dynamic>extern\s+)?__shared__\s+(?:alignas\(\d+\)\s+|__align__\(\d+\)\s+)?"
    r"(?P<type>[\w ]+?)\s+(?P<name>\w+)\[(?P<size>\d*)\];"
)
_LOCAL = re.compile(r"^(?P<whole>\s*(?:alignas\(\d+\) )?[\w ]+ (?P<name>\w+)\[\d+\];)", re.MULTILINE)
_NARROW = re.compile(r"\b(?:char|short|uchar|ushort|u?int8_t|u?int16_t)\s*\*")


@dataclass(frozen=True)
class Parameter:
    """A buffer of a kernel: its name without TVM's ``_ptr``, its numpy dtype, whether it may not be written."""

    name: str
    type: str
    dtype: np.dtype
    constant: bool


@dataclass(frozen=True)
class Kernel:
    """``most``: threads that a block may have."""

    name: str
    parameters: tuple[Parameter, ...]
    most: int


@dataclass(frozen=True)
class SharedArray:
    """``bytes``: None where the launch says.  ``granule``: bytes of the least part that threads share out."""

    name: str
    bytes: int | None
    granule: int


def kernels(source: str) -> dict[str, Kernel]:
    """The kernels of a text by name; BadInput where it has none, or one takes anything but buffers of integers."""
    found = {}
    for match in _KERNEL.finditer(source):
        parameters = tuple(_parameter(p, match["name"]) for p in match["parameters"].split(",") if p.strip())
        found[match["name"]] = Kernel(match["name"], parameters, int(match["most"] or 1024))
    if not found:
        raise BadInput('the CUDA text has no kernel (extern "C" __global__ void): give what TVM generates')
    return found


def _parameter(text: str, kernel: str) -> Parameter:
    words = re.sub(r"\b__restrict__\b", "", text).replace("*", " * ").split()
    constant = "const" in words
    *kind, star, name = [word for word in words if word != "const"]
    kind = " ".join(kind)
    if star != "*" or kind not in TYPES:
        raise BadInput(f"{kernel} takes {text.strip()!r}: the emulator passes buffers of integers only")
    return Parameter(name.removesuffix("_ptr"), kind, np.dtype(TYPES[kind]), constant)


def for_compiler(source: str) -> tuple[str, list[SharedArray]]:
    """The text with the same lines, ready for g++ and native/cuda.h, and the shared arrays in their order.

    Shared arrays get their memory from the emulator, local ones a pattern before they are written.  Each kernel gets an
    entry ``emulated_NAME()``, which finds the buffers in the order: shared arrays, parameters.
    """
    narrow = _NARROW.search(_KERNEL.sub("", source))
    arrays: list[SharedArray] = []

    def shared(match: re.Match) -> str:
        kind, name, size = match["type"], match["name"], match["size"]
        if kind not in TYPES:
            raise BadInput(f"the shared array {name} is of type {kind}: the emulator knows arrays of integers only")
        width = np.dtype(TYPES[kind]).itemsize
        index = f"emulator::buffer({len(arrays)})"
        if match["dynamic"]:
            arrays.append(SharedArray(name, None, 1 if narrow else WORD))
            return f"{kind}* {name} = static_cast<{kind}*>({index});"
        arrays.append(SharedArray(name, int(size) * width, 1 if narrow else min(width, WORD)))
        return f"auto& {name} = *static_cast<{kind} (*)[{size}]>({index});"

    changed = _SHARED.sub(shared, _LOCAL.sub(r"\g<whole> emulator::poison(\g<name>);", source))
    entries = []
    for kernel in kernels(source).values():
        buffers = ", ".join(f"static_cast<{p.type}*>(emulator::buffer({len(arrays) + i}))" for i, p in enumerate(kernel.parameters))
        entries.append(
            f'extern "C" __attribute__((visibility("default"))) void emulated_{kernel.name}() '
            f"{{ {kernel.name}({buffers}); }}"
        )
    return "\n".join([changed, *entries, ""]), arrays
