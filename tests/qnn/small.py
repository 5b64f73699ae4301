"""Quantized models of a few steps with drawn geometry, and the strategies that draw it."""

import numpy as np
from hypothesis import strategies as st

from hawqtvm.calibrate import calibrate
from hawqtvm.frontend.storage import build_graph
from hawqtvm.qnn.graph import LAYERS, Step
from hawqtvm.qnn.model import Arithmetic, QuantizedModel
from hawqtvm.quantize import quantize_layer

ACTIVATIONS = [{}, {"relu": True}, {"relu": True, "ceiling": 0.75}]
SEEDS = st.integers(0, 2**32 - 1)
DIMS = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 7))


def out_size(size: int, before: int, after: int, kernel: int, stride: int, dilation: int = 1) -> int:
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


@st.composite
def convolutions(draw, name: str, source: str, dims: tuple[int, int, int], **options) -> Step:
    """Any convolution that fits an image of ``dims``, its padding different on each side."""
    channels, height, width = dims
    padding = draw(st.tuples(*[st.integers(0, 2)] * 4))
    spaces = (height + padding[0] + padding[2], width + padding[1] + padding[3])
    kernel = tuple(draw(st.integers(1, min(3, space))) for space in spaces)
    fits = [1 if k == 1 else max(1, (s - 1) // (k - 1)) for s, k in zip(spaces, kernel, strict=True)]
    dilation = tuple(draw(st.integers(1, min(3, fit))) for fit in fits)
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    out = groups * draw(st.integers(1, 3))
    place = (
        out_size(height, padding[0], padding[2], kernel[0], strides[0], dilation[0]),
        out_size(width, padding[1], padding[3], kernel[1], strides[1], dilation[1]),
    )
    geometry = {"kernel": kernel, "strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    return Step(name, "conv2d", (source,), (out, *place), **geometry, **options)


@st.composite
def pools(draw, name: str, op: str, source: str, dims: tuple[int, int, int], **options) -> Step:
    """Any pool whose windows hold at least one value of an image of ``dims``."""
    channels, height, width = dims
    kernel = draw(st.tuples(st.integers(1, min(3, height)), st.integers(1, min(3, width))))
    padding = draw(st.tuples(*[st.integers(0, k // 2) for k in kernel])) * 2
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    place = (
        out_size(height, padding[0], padding[2], kernel[0], strides[0]),
        out_size(width, padding[1], padding[3], kernel[1], strides[1]),
    )
    return Step(name, op, (source,), (channels, *place), kernel=kernel, strides=strides, padding=padding, **options)


def pointwise(name: str, source: str, dims: tuple[int, int, int], channels: int, **options) -> Step:
    """A 1x1 convolution of an image of ``dims``."""
    return Step(name, "conv2d", (source,), (channels, *dims[1:]), **options)


def weight_shape(step: Step, channels: int) -> tuple[int, ...]:
    if step.op == "dense":
        return (step.dims[0], channels)
    return (step.dims[0], channels // step.groups, *step.kernel)


def small_model(input_dims: tuple[int, int, int], steps: list[Step], seed: int) -> QuantizedModel:
    """The steps with noise as weights, calibrated on noise."""
    rng = np.random.default_rng(seed)
    graph, weights = build_graph(input_dims, steps), {}
    for step in graph.layers:
        shape = weight_shape(step, graph.dims(step.inputs[0])[0])
        weights[step.name] = tuple(rng.standard_normal(s).astype("float32") for s in (shape, shape[:1]))
    images = rng.standard_normal((2, *input_dims)).astype("float32")
    ranges, _ = calibrate(graph, weights, [images], "minmax")
    layers = {s.name: quantize_layer(graph, s.name, *weights[s.name], ranges, "minmax")[0] for s in graph.layers}
    return QuantizedModel("small", graph, layers, ranges, np.empty(0, "uint8"))


def uniform(model: QuantizedModel, bits: int, residual: str = "int16") -> Arithmetic:
    """Every layer at ``bits``, also those that a plan would keep at 8."""
    assert all(s.op in LAYERS for s in model.graph.layers)
    return Arithmetic(model, dict.fromkeys(model.layers, bits), residual)


def random_codes(dims: tuple[int, int, int], seed: int, count: int = 2) -> np.ndarray:
    """uint8 ``(count, *dims)``; the last image holds only the extremes."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (count, *dims)).astype("uint8")
    codes[-1] = rng.choice([0, 255], dims)
    return codes
