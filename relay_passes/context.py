"""What the passes know beside the module."""

from dataclasses import dataclass

from hawqtvm.qnn.model import Arithmetic
from schedules.target import CpuTarget


@dataclass(frozen=True)
class Context:
    """``arithmetic``: the quantized model under the plan; ``threads``: what the kernels are shaped for."""

    arithmetic: Arithmetic
    batch: int
    target: CpuTarget
    threads: int
