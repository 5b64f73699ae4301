"""Plain int64 statements of what the kernels compute, and the way to compile and run a kernel."""

from dataclasses import replace

import numpy as np
import torch
import tvm

from schedules.lowering import compiled
from schedules.target import find_target
from schedules.workload import AvgPool2d, Conv2d, Elementwise, Epilogue, MaxPool2d, Requantized, Rescaled

VNNI = find_target("avx512-vnni")
TARGET = {"kind": "llvm", "mcpu": "x86-64-v4", "mattr": ["+avx512vnni"], "num-cores": 2}
BASELINE = {"kind": "llvm", "mcpu": "x86-64-v2", "num-cores": 2}


def rescale(values: np.ndarray, b, c) -> np.ndarray:
    """``(values * b + 2**(c-1)) >> c`` in int64."""
    b, c = np.asarray(b, "int64"), np.asarray(c, "int64")
    return (values.astype("int64") * b + (np.int64(1) << (c - 1))) >> c


def rescale_operand(codes: np.ndarray, operand: Rescaled) -> np.ndarray:
    return rescale(codes.astype("int64") - operand.zero_point, operand.b, operand.c)


def finish(acc: np.ndarray, epilogue: Epilogue | None, b, c, residual=None) -> np.ndarray:
    """Accumulators (N, O, H, W) -> output codes."""
    if epilogue is None:
        return acc
    y = rescale(acc, np.reshape(b, (1, -1, 1, 1)), np.reshape(c, (1, -1, 1, 1)))
    if epilogue.residual:
        y = y + rescale_operand(residual, epilogue.residual)
    return np.clip(y + epilogue.zero_point, epilogue.lo, epilogue.hi)


def requantize(codes: np.ndarray, wanted: Requantized) -> np.ndarray:
    return np.clip(rescale_operand(codes, wanted.y) + wanted.zero_point, wanted.lo, wanted.hi)


def windows_padded(x: np.ndarray, padding, value: int) -> np.ndarray:
    top, left, bottom, right = padding
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def conv2d(x, weight, bias, workload: Conv2d) -> np.ndarray:
    """Codes (N, C, H, W), int weights -> int64 accumulators; float64 is exact below 2**53."""
    padded = windows_padded(x.astype("float64"), workload.padding, workload.x_zero_point)
    acc = torch.nn.functional.conv2d(
        torch.from_numpy(padded),
        torch.from_numpy(weight.astype("float64")),
        stride=workload.strides,
        dilation=workload.dilation,
        groups=workload.groups,
    )
    return acc.numpy().astype("int64") + np.reshape(bias, (1, -1, 1, 1))


def dense(x, weight, bias) -> np.ndarray:
    acc = x[:, :, 0, 0].astype("int64") @ weight.astype("int64").T + bias
    return acc[:, :, None, None]


def elementwise(codes: list[np.ndarray], workload: Elementwise) -> np.ndarray:
    total = sum(rescale_operand(q, operand) for q, operand in zip(codes, workload.operands, strict=True))
    return np.clip(total + workload.zero_point, workload.lo, workload.hi)


def pooled(x: np.ndarray, workload: MaxPool2d | AvgPool2d, padding_value: int, dilation=(1, 1)) -> np.ndarray:
    """Windows (N, C, OH, OW, KH, KW) of a padded input."""
    padded = windows_padded(x.astype("int64"), workload.padding, padding_value)
    _, _, oh, ow = workload.out_dims
    (kh, kw), (sh, sw), (dh, dw) = workload.kernel, workload.strides, dilation
    taps = [
        padded[:, :, i * dh : i * dh + (oh - 1) * sh + 1 : sh, j * dw : j * dw + (ow - 1) * sw + 1 : sw]
        for i in range(kh)
        for j in range(kw)
    ]
    return np.stack(taps, axis=-1)


def max_pool2d(x: np.ndarray, workload: MaxPool2d) -> np.ndarray:
    return pooled(x, workload, workload.x.limits[0], workload.dilation).max(-1)


def avg_pool2d(x: np.ndarray, workload: AvgPool2d) -> np.ndarray:
    total = (pooled(x, workload, workload.x_zero_point) - workload.x_zero_point).sum(-1)
    return np.clip(rescale(total, workload.b, workload.c) + workload.zero_point, workload.lo, workload.hi)


def compile_kernel(func, target=TARGET):
    return compiled(func, tvm.target.Target(target))


def run(func, inputs: list[np.ndarray], out_shape, out_dtype: str, target=TARGET) -> np.ndarray:
    """The output of a kernel; its memory holds a pattern before, so that what is not written shows."""
    return run_outputs(func, inputs, [(out_shape, out_dtype)], target)[0]


def run_outputs(func, inputs: list[np.ndarray], outputs: list[tuple], target=TARGET) -> list[np.ndarray]:
    """As :func:`run` of a kernel with several outputs, of these shapes and dtypes."""
    out = [tvm.runtime.tensor(np.full(shape, 0x5A, dtype)) for shape, dtype in outputs]
    compile_kernel(func, target)["main"](*(tvm.runtime.tensor(array) for array in inputs), *out)
    return [tensor.numpy() for tensor in out]


def expand(functions: list, stored: list[np.ndarray], target=TARGET) -> list[np.ndarray]:
    """A layer's constants as its kernel takes them; what an expansion does not write shows."""

    def expanded(function, array):
        out = function.params[-1]
        return run(function, [array], tuple(map(int, out.shape)), str(out.dtype), target)

    return [a if f is None else expanded(f, a) for f, a in zip(functions, stored, strict=True)]


def with_garbage(stored: np.ndarray, format, channels: int) -> np.ndarray:
    """Fills the channels past ``channels`` of an NCHW16c tensor, which are undefined, with ones in every bit."""
    if format.layout != "NCHW16c" or channels % 16 == 0:
        return stored
    dims = (stored.shape[0], stored.shape[1] * 16, *stored.shape[2:4])
    plain = replace(format, packed=False)
    codes = format.load(stored, dims[1]).astype("int64")
    codes[:, channels:] = plain.limits[1]
    return format.store(codes)
