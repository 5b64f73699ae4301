"""Measuring where no compiler is: kernels packed into one file that runs there, and its results brought back."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hawqtvm.errors import BadInput
from hawqtvm.plan import Plan
from hawqtvm.tune import TRIALS

if TYPE_CHECKING:
    from hawqtvm.bundle.pack import Packed
    from hawqtvm.qnn.model import QuantizedModel
    from schedules.target import CudaTarget


def bundle(
    quantized: "QuantizedModel",
    out: str | os.PathLike,
    bits: dict[str, int] | int | Plan | None = None,
    batch: int = 1,
    *,
    target: str,
    residual: str = "int16",
    trials: int = TRIALS,
) -> "Packed":
    """Packs at most ``trials`` candidates for each distinct workload of a network into the file ``out``, a zipapp.

    ``target``: an NVIDIA GPU's.  The other arguments are those of :func:`hawqtvm.tune.tune`.  No GPU is needed here.
    Raises BadInput (a plan that does not fit, a target that is no GPU, no nvcc, a file that cannot be written) and
    CheckFailed (no candidate of a workload compiles).
    """
    from hawqtvm.bundle.pack import pack
    from hawqtvm.qnn.model import Arithmetic
    from hawqtvm.static_report.kernel import shape
    from hawqtvm.tune import networks_of
    from hawqtvm.tune.layers import distinct_workloads
    from relay_passes.context import Context
    from schedules.tuning_key import tuning_key

    level = gpu_target(batch, target, trials, out)
    found = {}
    for plan in networks_of(bits):
        arithmetic = Arithmetic(quantized, quantized.bits(plan.bits), residual)
        for workload, layers in distinct_workloads(Context(arithmetic, batch, level, 1)).items():
            found.setdefault(tuning_key(workload), (workload, f"{layers[0]}, {shape(workload)}"))
    title = f"{quantized.name} at batch {batch} for {level.name}"
    return pack(Path(out), title, dict(found.values()), level, trials)


def gpu_target(batch: int, target: str, trials: int, out: str | os.PathLike) -> "CudaTarget":
    """What to compile for; raises the BadInput of :func:`bundle` that is known before the long work."""
    from hawqtvm.files import check_appendable
    from hawqtvm.setting import machine
    from schedules.cuda import nvcc
    from schedules.target import CudaTarget

    if type(trials) is not int or trials < 1:
        raise BadInput(f"trials {trials!r}: give a whole number, 1 or more")
    _, level = machine(batch, None, target)
    if not isinstance(level, CudaTarget):
        raise BadInput(f"--bundle measures NVIDIA GPUs, not {level.name}: give --target, such as nvidia/nvidia-t4")
    nvcc.find_nvcc()
    check_appendable(out)
    return level
