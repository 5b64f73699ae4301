"""A module from a function, for tests of one operator."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from hawqtvm.frontend.storage import build_graph
from hawqtvm.frontend.trace import trace
from hawqtvm.qnn.graph import Graph
from hawqtvm.qnn.reference import run_float
from tests.nets import noise, seeded

DIMS = (3, 8, 8)


class Net(nn.Module):
    """``forward(x)`` is ``function(self, x)``; the keywords are its modules."""

    def __init__(self, function: Callable, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def conv(in_channels: int, out_channels: int, kernel: int = 3, **options) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, **options)


def graph_of(net: nn.Module, dims: tuple[int, int, int] = DIMS) -> Graph:
    return build_graph(dims, trace(net, dims)[0])


def assert_same(net: nn.Module, dims: tuple[int, int, int] = DIMS, seed: int = 0) -> Graph:
    """The graph of ``net``, whose float run gives what the module gives."""
    net, images = seeded(net, seed), noise(2, dims, seed)
    steps, weights = trace(net, dims)
    graph = build_graph(dims, steps)
    with torch.no_grad():
        expected = net(torch.from_numpy(images.copy())).numpy()
    for name, value in run_float(graph, weights, images):  # noqa: B007
        assert value.shape == (len(images), *graph.dims(name)), name
    np.testing.assert_allclose(value.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)
    return graph
