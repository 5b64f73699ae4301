"""A kernel's SASS: its Tensor Core instructions, and the innermost loop that holds most of them."""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from schedules.cuda.nvcc import find_tool

LINE = re.compile(
    r"(?P<label>\.L_x_\d+):|/\*[0-9a-f]+\*/ +(?P<guard>@\S+ +)?(?P<name>[A-Z][A-Z0-9_.]*)(?P<rest>[^;]*);"
)
TARGET = re.compile(r"`\((\.L_x_\d+)\)")
TENSOR = ("IMMA", "HMMA", "BMMA")
PADDING = "NOP"


@dataclass(frozen=True)
class Loop:
    """``instructions`` of one pass and how many of them are ``tensor``; ``always``: without those between two of these
    that a branch may skip.  ``repeated``: False where there is no such loop and this is the whole kernel, a straight
    line."""

    instructions: int
    tensor: int
    always: int
    repeated: bool


@dataclass(frozen=True)
class Sass:
    """``tensor``: Tensor Core instructions in the text by name; ``loop``: None for a kernel that has none."""

    instructions: int
    tensor: dict[str, int]
    loop: Loop | None


@dataclass(frozen=True)
class _Instruction:
    name: str
    guarded: bool
    target: str | None


def disassemble(cubin: bytes) -> str | None:
    """nvdisasm's text with labels; None where there is no nvdisasm."""
    tool = find_tool("nvdisasm")
    if tool is None:
        return None
    with tempfile.TemporaryDirectory(prefix="hawqtvm-") as directory:
        path = Path(directory, "kernel.cubin")
        path.write_bytes(cubin)
        return subprocess.run([tool, "-c", path], capture_output=True, text=True, check=True).stdout


def read(text: str) -> Sass:
    """Of the only kernel in nvdisasm's text."""
    code, places = _parse(text)
    branches = [(places[i.target], at) for at, i in enumerate(code) if i.name.startswith("BRA") and i.target in places]
    tensor = Counter(i.name for i in code if i.name.startswith(TENSOR))
    return Sass(len(code), dict(tensor), _busiest(code, branches) if tensor else None)


def _parse(text: str) -> tuple[list[_Instruction], dict[str, int]]:
    """Instructions in order, and the number of the one after each label."""
    code, places = [], {}
    for match in LINE.finditer(text):
        if match["label"]:
            places[match["label"]] = len(code)
        elif match["name"] != PADDING:
            target = TARGET.search(match["rest"])
            code.append(_Instruction(match["name"], match["guard"] is not None, target and target[1]))
    return code, places


def _busiest(code: list[_Instruction], branches: list[tuple[int, int]]) -> Loop:
    """Of the loops that hold no other, the one with most Tensor Core instructions, or else the whole kernel.

    A kernel ends in a branch to itself, which is no loop.
    """
    loops = [(start, end) for start, end in branches if start < end]
    innermost = [
        loop
        for loop in loops
        if not any(other != loop and loop[0] <= other[0] and other[1] <= loop[1] for other in loops)
    ]
    found = [_loop(code, branches, start, end, True) for start, end in innermost]
    busiest = max(found, key=lambda loop: loop.tensor, default=None)
    return busiest if busiest and busiest.tensor else _loop(code, branches, 0, len(code) - 1, False)


def _loop(code, branches, start: int, end: int, repeated: bool) -> Loop:
    inside = range(start, end + 1)
    tensor = [at for at in inside if code[at].name.startswith(TENSOR)]
    skipped: set[int] = set()
    for target, at in branches:
        between = range(at + 1, target)
        if at in inside and target <= end and code[at].guarded and not any(product in between for product in tensor):
            skipped.update(between)
    return Loop(len(inside), len(tensor), len(inside) - len(skipped), repeated)
