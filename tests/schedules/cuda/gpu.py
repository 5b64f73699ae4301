"""Kernels of several workloads for a GPU, compiled at once and run by the emulator."""

import numpy as np
import tvm
from hypothesis import Phase
from tvm import tirx

from hawqtvm.emulation import run_kernel
from hawqtvm.emulator import Emulated
from hawqtvm.qnn.formats import Format
from schedules.lowering import cuda_text
from schedules.target import CudaTarget, find_target

T4 = find_target("sm_75")


# of examples that are whole modules; shrinking would compile hundreds
SETTINGS = {"deadline": None, "derandomize": True, "phases": (Phase.explicit, Phase.generate)}


class Case:
    """``what`` a kernel is, its arguments but the outputs, and for each output its format and codes."""

    def __init__(
        self,
        what: object,
        kernel: tirx.PrimFunc,
        inputs: list[np.ndarray],
        wanted: list[tuple[Format, np.ndarray]],
    ):
        self.what, self.kernel, self.inputs, self.wanted = what, kernel, inputs, wanted

    def __repr__(self) -> str:
        return f"Case({self.what})"


def assert_exact(cases: list[Case], target: CudaTarget = T4) -> None:
    """Runs the kernels, all compiled at once, on memory that holds a pattern, and compares every code."""
    named = {f"kernel{number}": case.kernel for number, case in enumerate(cases)}
    module = tvm.IRModule({name: kernel.with_attr("global_symbol", name) for name, kernel in named.items()})
    emulated = Emulated(cuda_text(module, target.tvm))
    for (name, kernel), case in zip(named.items(), cases, strict=True):
        outputs = [np.full(format.shape(codes.shape), 0x5A, format.dtype) for format, codes in case.wanted]
        run_kernel(emulated, name, kernel, [*case.inputs, *outputs])
        for got, (format, codes) in zip(outputs, case.wanted, strict=True):
            np.testing.assert_array_equal(format.load(got, codes.shape[1], len(codes)), codes, err_msg=str(case.what))
