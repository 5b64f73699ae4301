"""What the emulator must know of CUDA text, and the little in which it changes it for g++."""

import re
from dataclasses import dataclass

import numpy as np

from hawqtvm.errors import BadInput

# as numpy has them; vectors as arrays of their lanes
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
for _name, _dtype in [("char", "int8"), ("short", "int16"), ("int", "int32"), ("longlong", "int64")]:
    for _lanes in (2, 3, 4):
        TYPES[f"{_name}{_lanes}"] = (_dtype, (_lanes,))
        TYPES[f"u{_name}{_lanes}"] = (f"u{_dtype}", (_lanes,))
WORD = 4  # bytes
THREADS = 1024  # most that a block of any architecture may have

_KERNEL = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\((?P<most>\d+)[^)]*\)\s*)?'
    r"(?P<name>\w+)\((?P<parameters>[^)]*)\)\s*\{"
)
_DECLARATION = re.compile(r'^extern "C" __global__ void [^{;]*;', re.MULTILINE)
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
class SharedArray:
    """``bytes``: None where the launch says.  ``granule``: bytes of the least part that threads share out."""

    name: str
    bytes: int | None
    granule: int


@dataclass(frozen=True)
class Kernel:
    """A kernel by itself: what g++ compiles, and the lines of CUDA text from which it was made.

    ``most``: threads that a block may have.  ``compiled`` has the same lines and does not hold the kernel's name, so
    that equal kernels are equal.  Its function ``emulated`` finds its buffers by number, shared arrays first, then
    parameters.
    """

    name: str
    parameters: tuple[Parameter, ...]
    shared: tuple[SharedArray, ...]
    most: int
    source: str
    compiled: str


def kernels(source: str) -> dict[str, Kernel]:
    """The kernels of a CUDA text by name; BadInput where it has none, or what the emulator does not know."""
    starts = list(_KERNEL.finditer(source))
    if not starts:
        raise BadInput('the CUDA text has no kernel (extern "C" __global__ void): give what TVM generates')
    ends = [match.start() for match in starts[1:]] + [len(source)]
    common = _DECLARATION.sub("", source[: starts[0].start()])
    return {m["name"]: _kernel(common, m, source[m.start() : end]) for m, end in zip(starts, ends, strict=True)}


def _kernel(common: str, head: re.Match, text: str) -> Kernel:
    parameters = tuple(_parameter(p, head["name"]) for p in head["parameters"].split(",") if p.strip())
    changed, shared = _own_arrays(text, bool(_NARROW.search(common + text[head.end() - head.start() :])))
    buffers = [f"static_cast<{p.type}*>(emulator::buffer({len(shared) + i}))" for i, p in enumerate(parameters)]
    entry = f"void emulated() {{ kernel({', '.join(buffers)}); }}"
    renamed = re.sub(rf"\b{head['name']}\b", "kernel", changed)
    compiled = f'{common}{renamed}\nextern "C" __attribute__((visibility("default"))) {entry}\n'
    return Kernel(head["name"], parameters, shared, int(head["most"] or THREADS), common + text, compiled)


def _parameter(text: str, kernel: str) -> Parameter:
    words = re.sub(r"\b__restrict__\b", "", text).replace("*", " * ").split()
    constant = "const" in words
    *kind, star, name = [word for word in words if word != "const"]
    kind = " ".join(kind)
    if star != "*" or kind not in TYPES:
        raise BadInput(f"{kernel} takes {text.strip()!r}: the emulator passes buffers of integers only")
    return Parameter(name.removesuffix("_ptr"), kind, np.dtype(TYPES[kind]), constant)


def _own_arrays(text: str, narrow: bool) -> tuple[str, tuple[SharedArray, ...]]:
    """Shared arrays get their memory from the emulator, local ones a pattern before they are written.

    ``narrow``: the text has pointers to less than a word.
    """
    arrays: list[SharedArray] = []

    def shared(match: re.Match) -> str:
        kind, name, size = match["type"], match["name"], match["size"]
        if kind not in TYPES:
            raise BadInput(f"the shared array {name} is of type {kind}: the emulator knows arrays of integers only")
        width = np.dtype(TYPES[kind]).itemsize
        memory = f"emulator::buffer({len(arrays)})"
        if match["dynamic"]:
            arrays.append(SharedArray(name, None, 1))
            return f"{kind}* {name} = static_cast<{kind}*>({memory});"
        arrays.append(SharedArray(name, int(size) * width, 1 if narrow else min(width, WORD)))
        return f"auto& {name} = *static_cast<{kind} (*)[{size}]>({memory});"

    changed = _SHARED.sub(shared, _LOCAL.sub(r"\g<whole> emulator::poison(\g<name>);", text))
    return changed, tuple(arrays)
