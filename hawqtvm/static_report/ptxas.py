"""What ptxas says of a kernel when asked to (``-Xptxas -v``)."""

import re
from dataclasses import dataclass

from hawqtvm.errors import CheckFailed

VERBOSE = ("-Xptxas", "-v")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(.*)")
SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Resources:
    """``registers`` and ``stack`` bytes of a thread; ``spilled``: bytes of spill stores and loads in its code;
    ``shared``: static bytes of a block."""

    registers: int
    stack: int
    spilled: int
    shared: int


def resources(messages: str) -> Resources:
    """Of the only kernel in ptxas's messages; CheckFailed where they are of none or of several."""
    frames, used = FRAME.findall(messages), USED.findall(messages)
    if len(frames) != 1 or len(used) != 1:
        raise CheckFailed(f"ptxas describes {len(used)} kernels and {len(frames)} stack frames, not one of each")
    (stack, stores, loads), (registers, rest) = map(int, frames[0]), used[0]
    shared = SHARED.search(rest)
    return Resources(int(registers), stack, stores + loads, int(shared[1]) if shared else 0)
