"""What the passes know beside the module."""

from dataclasses import dataclass

from hawqtvm.qnn.model import Arithmetic
from schedules.target import CudaTarget, Target
from schedules.tuned import Tuned


@dataclass(frozen=True)
class Context:
    """``arithmetic``: the quantized model under the plan; ``threads``: what the kernels are shaped for, 1 on a GPU.

    ``words``: 4-bit activations eight in an int32, not each in a byte; on a GPU always.  ``tuned``: measured
    schedules; None leaves the choice to the schedules' estimates.
    """

    arithmetic: Arithmetic
    batch: int
    target: Target
    threads: int
    words: bool = True
    tuned: Tuned | None = None

    @property
    def on_gpu(self) -> bool:
        return isinstance(self.target, CudaTarget)
