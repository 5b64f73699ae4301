"""PyTorch runs the model: in floats, in fake-quantized floats, and in exact integers by the project's arithmetic.

All three walk the same steps.  The integer run is what every kernel, pass and artifact is held against.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from hawqtvm.errors import CheckFailed
from hawqtvm.qnn.dyadic import rescale
from hawqtvm.qnn.graph import LAYERS, Graph, Step
from hawqtvm.qnn.model import Arithmetic, Quantization, QuantizedModel


def layer_sum(step: Step, x: torch.Tensor, weight: torch.Tensor, pad_value: float = 0.0) -> torch.Tensor:
    """A layer without its bias, in the dtype of ``x``; ``(N, C, H, W) -> (N, O, OH, OW)``."""
    if step.op == "dense":
        return dense_sum(x, weight)
    return conv2d_sum(step, x, weight, pad_value)


def dense_sum(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.linear(x.flatten(1), weight)[:, :, None, None]


def conv2d_sum(window, x: torch.Tensor, weight: torch.Tensor, pad_value: float) -> torch.Tensor:
    """``window``, here and below: a step, or what else has its geometry."""
    top, left, bottom, right = window.padding
    if any(window.padding):
        x = F.pad(x, (left, right, top, bottom), value=pad_value)
    return F.conv2d(x, weight, None, window.strides, 0, window.dilation, window.groups)


def window_sum(window, x: torch.Tensor) -> torch.Tensor:
    top, left, bottom, right = window.padding
    x = F.pad(x, (left, right, top, bottom))
    return F.avg_pool2d(x, window.kernel, window.strides, divisor_override=1)


def window_max(window, x: torch.Tensor) -> torch.Tensor:
    top, left, bottom, right = window.padding
    x = F.pad(x, (left, right, top, bottom), value=-torch.inf)
    return F.max_pool2d(x, window.kernel, window.strides, 0, window.dilation)


def per_channel(values: np.ndarray) -> np.ndarray:
    """``(O,)`` or scalar -> broadcastable over ``(N, O, H, W)``."""
    return np.asarray(values).reshape(1, -1, 1, 1)


def clip_real(step: Step, value: torch.Tensor) -> torch.Tensor:
    if step.relu:
        value = value.clamp(min=0, max=step.ceiling)
    return value


def real_step(
    step: Step, inputs: list[torch.Tensor], weight: np.ndarray | torch.Tensor | None, bias: np.ndarray | None
) -> torch.Tensor:
    """One step on real float32 values; differentiable in its inputs and in a weight that is a torch tensor."""
    if step.op in LAYERS:
        value = layer_sum(step, inputs[0], torch.as_tensor(weight)) + torch.from_numpy(per_channel(bias))
    elif step.op == "add":
        value = inputs[0] + inputs[1]
    elif step.op == "concat":
        value = torch.cat(inputs, 1)
    elif step.op == "max_pool2d":
        value = window_max(step, inputs[0])
    elif step.op == "avg_pool2d":
        value = window_sum(step, inputs[0]) / (step.kernel[0] * step.kernel[1])
    else:
        value = inputs[0]
    return clip_real(step, value)


def live_run(graph: Graph, first: object) -> Iterator[tuple[Step, dict]]:
    """Yields each step with the tensors still needed; the caller stores the step's output under its name."""
    last_use = {name: step.name for step in graph.steps for name in step.inputs}
    env = {"input": first}
    for step in graph.steps:
        yield step, env
        for name in step.inputs:
            if last_use[name] == step.name:
                env.pop(name, None)


def run_float(model_graph: Graph, weights: dict[str, tuple], images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields ``(tensor name, float32 (N, C, H, W))`` for the input and each step in order."""
    yield "input", images
    for step, env in live_run(model_graph, torch.from_numpy(np.ascontiguousarray(images, "float32"))):
        weight, bias = weights.get(step.name, (None, None))
        with torch.no_grad():
            env[step.name] = real_step(step, [env[i] for i in step.inputs], weight, bias)
        yield step.name, env[step.name].numpy()


def fake_quantize(value: torch.Tensor, q: Quantization, lo: int, hi: int) -> torch.Tensor:
    """Rounds half up, as the integers do, and back: ``S (clip(floor(x / S + 1/2) + Z) - Z)``."""
    codes = torch.floor(value / q.scale + 0.5) + q.zero_point
    return (codes.clamp(lo, hi) - q.zero_point) * q.scale


def run_fake(arithmetic: Arithmetic, codes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Fake-quantized floats: yields ``(tensor, float32 real values)`` for each step, from uint8 input ``codes``."""
    q = arithmetic.tensors["input"]
    first = torch.from_numpy((codes.astype("float32") - q.zero_point) * np.float32(q.scale))
    for step, env in live_run(arithmetic.graph, first):
        weight = bias = None
        if step.op in LAYERS:
            bits, stored = arithmetic.layer_bits[step.name], arithmetic.model.layers[step.name]
            weight, bias = stored.dequantized(bits), stored.bias
        with torch.no_grad():
            value = real_step(step, [env[i] for i in step.inputs], weight, bias)
            out = arithmetic.tensors[step.name]
            if out is not None and arithmetic.graph.tensors[step.name].kind != "logits":
                value = fake_quantize(value, out, *arithmetic.clip(step, out))
        env[step.name] = value
        yield step.name, value.numpy()


def integer_step(arithmetic: Arithmetic, step: Step, inputs: list[np.ndarray]) -> np.ndarray:
    """One step on integer codes, int64 ``(N, C, H, W)`` in and out.  Raises CheckFailed if an int32 sum overflows."""
    p = arithmetic.parameters(step)
    exact = [torch.from_numpy(v.astype("float64")) for v in inputs]  # sums stay below 2**53
    if step.op == "max_pool2d":
        return window_max(step, exact[0]).numpy().astype("int64")
    if step.op == "concat":
        return np.concatenate(inputs, 1)
    if step.op in LAYERS:
        total = layer_sum(step, exact[0], torch.from_numpy(p.weight.astype("float64")), float(p.in_zero_points[0]))
        sums = [total.numpy().astype("int64") + per_channel(p.bias)]
    elif step.op == "avg_pool2d":
        sums = [window_sum(step, exact[0] - p.in_zero_points[0]).numpy().astype("int64")]
    else:
        sums = [v - z for v, z in zip(inputs, p.in_zero_points, strict=True)]
    if max(int(np.abs(s).max()) for s in sums) >= 2**31:
        raise CheckFailed(f"{step.name}: the int32 accumulator overflows")
    if p.out is None:
        return sums[0]
    pairs = p.dyadic(step.name)
    total = sum(rescale(s, per_channel(b), per_channel(c)) for s, (b, c) in zip(sums, pairs, strict=True))
    return np.clip(total + p.out.zero_point, p.lo, p.hi)


def run_integer(arithmetic: Arithmetic, codes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields ``(tensor, int64 codes (N, C, H, W))`` for each step, from uint8 input ``codes``."""
    for step, env in live_run(arithmetic.graph, codes.astype("int64")):
        env[step.name] = integer_step(arithmetic, step, [env[i] for i in step.inputs])
        yield step.name, env[step.name]


def quantize_input(q: Quantization, images: np.ndarray) -> np.ndarray:
    """float32 images -> uint8 codes: ``clip(rint(x * float32(1 / S)) + Z)``, the library's own float32 steps."""
    inverse = np.float32(1.0 / q.scale)
    codes = np.rint(np.asarray(images, "float32") * inverse) + np.float32(q.zero_point)
    return np.clip(codes, 0, 255).astype("uint8")


def last(run: Iterator[tuple[str, np.ndarray]]) -> np.ndarray:
    """The last tensor of a run, ``(N, O)`` where it has no height and width."""
    value = deque(run, maxlen=1).pop()[1]
    return value.reshape(len(value), -1) if value.shape[2:] == (1, 1) else value


def logits(arithmetic: Arithmetic, codes: np.ndarray) -> np.ndarray:
    """int64 logits ``(N, ...)`` of the integer model."""
    return last(run_integer(arithmetic, codes))


def float_logits(model: QuantizedModel, images: np.ndarray) -> np.ndarray:
    """float32 logits ``(N, ...)`` of the folded float model."""
    weights = {name: (layer.weight, layer.bias) for name, layer in model.layers.items()}
    return last(run_float(model.graph, weights, images))
