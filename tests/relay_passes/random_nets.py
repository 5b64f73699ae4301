"""Hypothesis strategy of small random networks: any operator on any earlier tensor, odd sizes, one-pixel images."""

import torch
from hypothesis import strategies as st
from torch import nn

Dims = tuple[int, int, int]
OPERATORS = ("conv", "conv", "depthwise", "grouped", "max_pool", "avg_pool", "add", "concat", "relu", "relu6")


class RandomNet(nn.Module):
    """``program``: (operator, indices of its inputs, its module or None) by tensor; tensor 0 is the input."""

    def __init__(self, program: list[tuple[str, tuple[int, ...], nn.Module | None]]):
        super().__init__()
        self.program = [(operator, inputs) for operator, inputs, _ in program]
        for index, (_, _, module) in enumerate(program):
            if module is not None:
                self.add_module(f"layer{index}", module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tensors = [x]
        for index, (operator, inputs) in enumerate(self.program):
            values = [tensors[i] for i in inputs]
            if operator == "add":
                tensors.append(values[0] + values[1])
            elif operator == "concat":
                tensors.append(torch.cat(values, 1))
            elif operator == "linear":
                tensors.append(getattr(self, f"layer{index}")(torch.flatten(values[0], 1)))
            else:
                tensors.append(getattr(self, f"layer{index}")(values[0]))
        return tensors[-1]

    def __repr__(self) -> str:
        return f"RandomNet({', '.join(f'{o}{list(i)}' for o, i in self.program)}; {super().__repr__()})"


def extent(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@st.composite
def windows(draw, dims: Dims, pool: bool) -> tuple[dict, tuple[int, int]]:
    """Geometry that leaves at least one pixel, and the output's height and width."""
    side = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride = draw(side), draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2), (4, 3)]))
    dilation = (1, 1) if pool else draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 2)]))
    padding = draw(st.tuples(*[st.integers(0, k // 2 if pool else 2) for k in kernel]))
    out = [extent(*axis) for axis in zip(dims[1:], kernel, stride, padding, dilation, strict=True)]
    if min(out) < 1:
        return {"kernel_size": 1, "stride": 1, "padding": 0}, dims[1:]
    geometry = {"kernel_size": kernel, "stride": stride, "padding": padding}
    return geometry | ({} if pool else {"dilation": dilation}), tuple(out)


@st.composite
def networks(draw) -> tuple[RandomNet, Dims]:
    """A network, untrained, and its input's ``(C, H, W)``."""
    first = draw(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)))
    shapes, program = [first], []

    def append(operator: str, inputs: tuple[int, ...], module: nn.Module | None, dims: Dims) -> None:
        program.append((operator, inputs, module))
        shapes.append(dims)

    def convolution(operator: str, source: int) -> None:
        channels = shapes[source][0]
        geometry, size = draw(windows(shapes[source], pool=False))
        groups = 1
        if operator != "conv":
            divisors = [g for g in range(1, channels + 1) if channels % g == 0]
            groups = channels if operator == "depthwise" else draw(st.sampled_from(divisors))
        out = groups * draw(st.integers(1, max(1, 20 // groups)))
        module = nn.Conv2d(channels, out, groups=groups, bias=draw(st.booleans()), **geometry)
        append(operator, (source,), module, (out, *size))

    convolution("conv", 0)
    for _ in range(draw(st.integers(0, 5))):
        operator = draw(st.sampled_from(OPERATORS))
        # a ReLU goes into its convolution, and nothing may then stand after the network's output
        recent = 1 if operator in ("relu", "relu6") else 3
        source = draw(st.sampled_from(range(len(shapes))[-recent:]))
        dims = shapes[source]
        alike = [i for i, other in enumerate(shapes) if other == dims]
        joinable = [i for i, other in enumerate(shapes) if other[1:] == dims[1:]]
        if operator in ("conv", "depthwise", "grouped"):
            convolution(operator, source)
        elif operator in ("max_pool", "avg_pool"):
            geometry, size = draw(windows(dims, pool=True))
            pool = nn.MaxPool2d if operator == "max_pool" else nn.AvgPool2d
            append(operator, (source,), pool(**geometry), (dims[0], *size))
        elif operator == "add":
            inputs = (source, draw(st.sampled_from(alike)))
            append(operator, inputs if draw(st.booleans()) else inputs[::-1], None, dims)
        elif operator == "concat":
            inputs = (source, *draw(st.lists(st.sampled_from(joinable), min_size=1, max_size=2)))
            append(operator, inputs, None, (sum(shapes[i][0] for i in inputs), *dims[1:]))
        else:
            append(operator, (source,), nn.ReLU() if operator == "relu" else nn.ReLU6(), dims)
    last, (channels, height, width) = len(shapes) - 1, shapes[-1]
    head = draw(st.sampled_from(["linear", "conv", "pool", "as it is"]))
    if head == "linear":
        append("linear", (last,), nn.Linear(channels * height * width, draw(st.integers(1, 18))), (1, 1, 1))
    elif head == "conv":
        convolution("conv", last)
    elif head == "pool":
        append("pool", (last,), nn.AdaptiveAvgPool2d(1), (channels, 1, 1))
    return RandomNet(program), first
