"""Kernels for a GPU, run by the emulator."""

from typing import NamedTuple

import numpy as np
from tvm import tirx

from hawqtvm.emulator.lowered import lower, unwritten
from hawqtvm.qnn.formats import Format
from schedules.target import find_target

T4 = find_target("sm_75")


class Case(NamedTuple):
    """``what`` a kernel is, its arguments but the outputs, and for each output its format and codes."""

    what: object
    kernel: tirx.PrimFunc
    inputs: list[np.ndarray]
    wanted: list[tuple[Format, np.ndarray]]


def assert_exact(case: Case) -> None:
    """Runs the kernel on memory that holds a pattern and compares every code."""
    outputs = [unwritten(format.shape(codes.shape), format.dtype) for format, codes in case.wanted]
    lower(case.kernel, T4.tvm).run(*case.inputs, *outputs)
    for got, (format, codes) in zip(outputs, case.wanted, strict=True):
        np.testing.assert_array_equal(format.load(got, codes.shape[1], len(codes)), codes, err_msg=str(case.what))
