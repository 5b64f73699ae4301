"""Compiles and runs kernels as each level builds them.

Processors with AVX512-VNNI but not AVX-VNNI run the latter's code with their own encoding of vpdpbusd, the one
instruction of it that they lack.
"""

import re
import tempfile
from pathlib import Path

import numpy as np
import tvm
from tvm.support import cc

from hawqtvm.runtime.cpu import cpu_features
from schedules.lowering import compiled
from schedules.target import CpuTarget, find_target

LEVELS = [find_target(name) for name in ("avx512-vnni", "avx-vnni", "avx2")]


def runs(target: CpuTarget) -> bool:
    return cpu_features().issuperset(target.features) or (target.avx_vnni and _has_other_encoding())


def _has_other_encoding() -> bool:
    return cpu_features() >= {"avx512vl", "avx512_vnni"}


def assembly(func, target: CpuTarget) -> str:
    return compiled(func, target.tvm).mod.inspect_source("asm")


def compile_for(func, target: CpuTarget):
    """The compiled PrimFunc."""
    if cpu_features().issuperset(target.features):
        return compiled(func, target.tvm)["main"]
    # GNU's assembler takes the AVX-512 form unless told otherwise, and stumbles over LLVM's line numbers
    text = re.sub(r"\n\t\.(file|loc)\b.*", "", assembly(func, target).replace("{vex}", ""))
    with tempfile.TemporaryDirectory() as directory:
        source, library = Path(directory, "kernel.s"), Path(directory, "kernel.so")
        source.write_text(text)
        cc.create_shared(str(library), [str(source)])
        return tvm.runtime.load_module(str(library))["main"]


def run(func, inputs: list[np.ndarray], out_shape, out_dtype: str, target: CpuTarget) -> np.ndarray:
    """The output of a kernel; its memory holds a pattern before, so that what is not written shows."""
    return run_outputs(func, inputs, [(out_shape, out_dtype)], target)[0]


def run_outputs(func, inputs: list[np.ndarray], outputs: list[tuple], target: CpuTarget) -> list[np.ndarray]:
    """As :func:`run` of a kernel with several outputs, of these shapes and dtypes."""
    out = [tvm.runtime.tensor(np.full(shape, 0x5A, dtype)) for shape, dtype in outputs]
    compile_for(func, target)(*(tvm.runtime.tensor(array) for array in inputs), *out)
    return [tensor.numpy() for tensor in out]
