"""Runs Tensor Core kernels in the emulator, beside int64, with all that is undefined filled with large codes."""

import numpy as np
from cases import WORDS
from reference import conv2d, dense, finish, requantize

from hawqtvm.emulator.lowered import lower
from hawqtvm.qnn.formats import Format, fragment_rows
from schedules.cuda import conv2d_direct
from schedules.target import find_target

ARCHES = ("sm_75", "sm_80", "sm_90")


def stored_with_garbage(codes: np.ndarray, format: Format) -> np.ndarray:
    """Codes as stored; images past N and channels past C are as large as can be."""
    n, c, h, w = codes.shape
    if format.layout == "NCHW":
        return format.store(codes)
    everything = np.full((fragment_rows(n), -(-c // 32) * 32, h, w), format.limits[1])
    everything[:n, :c] = codes
    return format.store(everything)


def outcome(arch: str, config, workload, x, weight, bias, b, c, residual=None, schedule=conv2d_direct):
    """Each output of a kernel and what it should be, ``(N, O, H, W)``."""
    target, epilogue = find_target(arch), workload.epilogue
    assert schedule.check(config, workload, target) is None
    arrays = [stored_with_garbage(x, workload.x), *schedule.constants(config, workload, weight, bias, b, c)]
    if residual is not None:
        arrays.append(stored_with_garbage(residual, epilogue.residual.format))
    written = epilogue.outputs if epilogue else (WORDS[-1],)
    outputs = [np.full(format.shape(workload.out_dims), 0x5A, format.dtype) for format in written]
    lower(schedule.build(config, workload, target), target.tvm).run(*arrays, *outputs)
    sums = conv2d(x, weight, bias, workload) if weight.ndim == 4 else dense(x, weight, bias)
    wanted = [finish(sums, epilogue, b, c, residual)]
    if epilogue and epilogue.codes:
        wanted.append(requantize(wanted[0], epilogue.codes))
    _, channels, *_ = workload.out_dims
    return [
        (format.load(stored, channels, workload.batch), codes)
        for format, stored, codes in zip(written, outputs, wanted, strict=True)
    ]
