"""The integer arithmetic once more, from the design alone: Python's integers and fractions, none of the project's code.

Codes are int64 ``(N, C, H, W)``; zero points are subtracted before anything else, so that what the project folds into
biases and pads with is checked too.
"""

from fractions import Fraction

import numpy as np

INT32 = (-(2**31), 2**31 - 1)
CODES = {"uint4": (0, 15), "uint8": (0, 255), "int16": (-(2**15), 2**15 - 1), "int32": (1 - 2**21, 2**21 - 1)}


def nearest_dyadic(ratio: float, bits: int) -> tuple[int, int]:
    """The ``(b, c)`` of eq. 5: the first c that gives b its bits, 31 or, for codes of at most 8 bits, 15."""
    exact, c = Fraction(max(float(ratio), 2.0**-32)), -30  # below that, every int32 becomes 0
    while round(exact * Fraction(2) ** c) < 2 ** (bits - 1):
        c += 1
    return round(exact * Fraction(2) ** c) << (31 - bits), c + 31 - bits


def rescale(values: np.ndarray, ratio: float, bits: int) -> np.ndarray:
    """``floor(values * b / 2**c + 1/2)`` in Python's integers."""
    b, c = nearest_dyadic(ratio, bits)
    return ((2 * b * values.astype(object) + 2**c) // 2 ** (c + 1)).astype("int64")


def rescale_channels(values: np.ndarray, ratios, out) -> np.ndarray:
    """Channel k of ``values`` times ``ratios[k]``, or all times the one ratio, for codes of ``out``."""
    bits = 15 if out.code in ("uint4", "uint8") else 31
    ratios = np.broadcast_to(np.asarray(ratios, "float64"), values.shape[1:2])
    return np.stack([rescale(values[:, channel], ratio, bits) for channel, ratio in enumerate(ratios)], 1)


def windows(x: np.ndarray, step, fill: int):
    """Yields ``(i, j, (N, C, OH, OW) values under tap (i, j))`` of a padded image."""
    top, left, bottom, right = step.padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    reach = [d * (k - 1) + 1 for d, k in zip(step.dilation, step.kernel, strict=True)]
    rows = range(0, padded.shape[2] - reach[0] + 1, step.strides[0])
    columns = range(0, padded.shape[3] - reach[1] + 1, step.strides[1])
    for i in range(step.kernel[0]):
        for j in range(step.kernel[1]):
            at = np.ix_([r + i * step.dilation[0] for r in rows], [c + j * step.dilation[1] for c in columns])
            yield i, j, padded[:, :, at[0], at[1]]


def conv2d(x: np.ndarray, zero_point: int, weight: np.ndarray, step) -> np.ndarray:
    total, weight = 0, weight.astype("int64")
    inside, outside = weight.shape[1], weight.shape[0] // step.groups
    for i, j, taps in windows(x - zero_point, step, 0):
        parts = [
            np.einsum(
                "nchw,oc->nohw",
                taps[:, g * inside : (g + 1) * inside],
                weight[g * outside : (g + 1) * outside, :, i, j],
            )
            for g in range(step.groups)
        ]
        total = total + np.concatenate(parts, 1)
    return total


def dense(x: np.ndarray, zero_point: int, weight: np.ndarray) -> np.ndarray:
    return ((x - zero_point).reshape(len(x), -1) @ weight.T.astype("int64"))[:, :, None, None]


def finish(total: np.ndarray, out, step, limits: tuple[int, int]) -> np.ndarray:
    """Adds the zero point and clips: to the codes, and to ReLU's and ReLU6's ends."""
    low, high = limits
    if step.relu:
        low = max(low, out.zero_point)
    if step.ceiling is not None:
        high = min(high, out.zero_point + round(step.ceiling / out.scale))
    return np.minimum(np.maximum(total + out.zero_point, low), high)


def run(arithmetic, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of a quantized model; only scales, zero points and stored weights come from ``arithmetic``."""
    tensors, graph, layers = arithmetic.tensors, arithmetic.graph, arithmetic.model.layers
    env = {"input": codes.astype("int64")}
    sum_scales = {}
    for step in graph.steps:
        inputs, out = [env[i] for i in step.inputs], tensors[step.name]
        limits = CODES[out.code] if out else INT32
        if step.op in ("conv2d", "dense"):
            source, bits = tensors[step.inputs[0]], arithmetic.layer_bits[step.name]
            layer = layers[step.name]
            scale = sum_scales[step.name] = layer.scales[bits] * source.scale
            function = {"conv2d": lambda *a, s=step: conv2d(*a, s), "dense": dense}[step.op]
            total = function(inputs[0], source.zero_point, layer.codes[bits])
            total = total + np.rint(layer.bias / scale).astype("int64").reshape(1, -1, 1, 1)
            if out is None:
                env[step.name] = total
                continue
            if graph.tensors[step.name].kind == "logits" and step is graph.steps[-1]:
                limits = INT32
            env[step.name] = finish(rescale_channels(total, scale / out.scale, out), out, step, limits)
        elif step.op == "max_pool2d":
            env[step.name] = np.max([taps for _, _, taps in windows(inputs[0], step, -(2**40))], axis=0)
        elif step.op == "concat":
            env[step.name] = np.concatenate(inputs, 1)
        elif step.op == "avg_pool2d":
            source = tensors[step.inputs[0]]
            total = sum(taps for _, _, taps in windows(inputs[0] - source.zero_point, step, 0))
            ratio = source.scale / (out.scale * step.kernel[0] * step.kernel[1])
            env[step.name] = finish(rescale_channels(total, ratio, out), out, step, limits)
        else:  # an addition, or a requantization of one tensor
            total = 0
            for name, value in zip(step.inputs, inputs, strict=True):
                wide = tensors[name]
                scale = sum_scales[name] if wide is None else wide.scale
                total = total + rescale_channels(value - (wide.zero_point if wide else 0), scale / out.scale, out)
            env[step.name] = finish(total, out, step, limits)
    return env
