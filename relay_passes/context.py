"""What the passes know beside the module."""

from dataclasses import dataclass

from hawqtvm.qnn.model import Arithmetic
from schedules.target import CpuTarget
from schedules.tuned import Tuned


@dataclass(frozen=True)
class Context:
    """``arithmetic``: the quantized model under the plan; ``threads``: what the kernels are shaped for.

    ``words``: 4-bit activations eight in an int32, not each in a byte.  ``tuned``: measured schedules; None leaves the
    choice to the schedules' estimates.
    """

    arithmetic: Arithmetic
    batch: int
    target: CpuTarget
    threads: int
    words: bool = True
    tuned: Tuned | None = None
