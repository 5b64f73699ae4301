"""What a kernel must make of one workload, in int64 by PyTorch and numpy.

Codes are ``(N, C, H, W)``.  Sums are computed in float64, which is exact below 2**53.
"""

import numpy as np
import torch

from hawqtvm.qnn.dyadic import rescale
from hawqtvm.qnn.reference import conv2d_sum, dense_sum, per_channel, window_max, window_sum
from schedules.workload import AvgPool2d, Concat, Conv2d, Dense, Elementwise, Epilogue, MaxPool2d, Reformat, Rescaled


def layer_sums(workload: Conv2d | Dense, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Accumulators without the bias."""
    x, weight = _exact(x), _exact(weight)
    made = (
        dense_sum(x, weight) if isinstance(workload, Dense) else conv2d_sum(workload, x, weight, workload.x_zero_point)
    )
    return made.numpy().astype("int64")


def finished(epilogue: Epilogue, sums: np.ndarray, b, c, residual: np.ndarray | None) -> list[np.ndarray]:
    """The outputs of accumulators, HAWQ-V3 eq. 4, 5 and 7; ``b``, ``c`` one a channel."""
    y = rescale(sums, per_channel(b), per_channel(c))
    if epilogue.residual:
        y = y + _rescaled(residual, epilogue.residual)
    made = [_clipped(y, epilogue)]
    if epilogue.codes:
        made.append(_clipped(_rescaled(made[0], epilogue.codes.y), epilogue.codes))
    return made


def outcome(workload: Elementwise | MaxPool2d | AvgPool2d | Concat | Reformat, inputs: list[np.ndarray]) -> np.ndarray:
    """Of a workload without weights."""
    if isinstance(workload, (Concat, Reformat)):
        return np.concatenate(inputs, 1)
    if isinstance(workload, MaxPool2d):
        return window_max(workload, _exact(inputs[0])).numpy().astype("int64")
    if isinstance(workload, AvgPool2d):
        sums = window_sum(workload, _exact(inputs[0]) - workload.x_zero_point).numpy().astype("int64")
        return _clipped(rescale(sums, workload.b, workload.c), workload)
    return _clipped(sum(_rescaled(q, operand) for q, operand in zip(inputs, workload.operands, strict=True)), workload)


def _rescaled(codes: np.ndarray, operand: Rescaled) -> np.ndarray:
    return rescale(codes.astype("int64") - operand.zero_point, operand.b, operand.c)


def _clipped(values: np.ndarray, made_by) -> np.ndarray:
    return np.clip(values + made_by.zero_point, made_by.lo, made_by.hi)


def _exact(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype("float64"))
