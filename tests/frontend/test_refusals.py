"""What the frontend does not take: one message that names the operator or the module."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hawqtvm.errors import BadInput
from hawqtvm.frontend.trace import trace
from tests.frontend.small import DIMS, Net, conv
from tests.nets import seeded

REFUSED = {
    "ConvTranspose2d": (nn.Sequential(nn.ConvTranspose2d(3, 4, 2)), "0.*ConvTranspose2d.*supported are Conv2d"),
    "Sigmoid": (nn.Sequential(conv(3, 4), nn.Sigmoid()), "module 1 .Sigmoid"),
    "sigmoid": (Net(lambda s, x: torch.sigmoid(s.a(x)), a=conv(3, 4)), "sigmoid"),
    "softmax": (Net(lambda s, x: F.softmax(s.a(x), 1), a=conv(3, 4)), "softmax"),
    "method": (Net(lambda s, x: s.a(x).permute(0, 2, 3, 1), a=conv(3, 4)), "permute"),
    "multiplication": (Net(lambda s, x: s.a(x) * s.b(x), a=conv(3, 4), b=conv(3, 4)), "mul"),
    "split": (Net(lambda s, x: torch.chunk(s.a(x), 2, 1)[0], a=conv(3, 4)), "chunk"),
    "batch norm first": (nn.Sequential(nn.BatchNorm2d(3), conv(3, 4)), "BatchNorm2d.*folded"),
    "batch norm after a pool": (nn.Sequential(conv(3, 4), nn.MaxPool2d(2), nn.BatchNorm2d(4)), "2 .BatchNorm2d"),
    "batch norm after relu": (nn.Sequential(conv(3, 4), nn.ReLU(), nn.BatchNorm2d(4)), "BatchNorm2d.*folded"),
    "batch norm beside another reader": (
        Net(lambda s, x: s.n(y := s.a(x)) + y, a=conv(3, 4), n=nn.BatchNorm2d(4)),
        "module n .BatchNorm2d",
    ),
    "batch norm of the batch": (
        nn.Sequential(conv(3, 4), nn.BatchNorm2d(4, track_running_stats=False)),
        "running statistics",
    ),
    "convolution called twice": (Net(lambda s, x: s.a(s.a(x)), a=conv(3, 3)), "module a .Conv2d.*twice"),
    "linear called twice": (
        Net(lambda s, x: s.a(s.a(x.mean((2, 3)))), a=nn.Linear(3, 3)),
        "module a .Linear.*twice",
    ),
    "two outputs": (Net(lambda s, x: (s.a(x), x), a=conv(3, 4)), "must return one tensor"),
    "a dict": (Net(lambda s, x: {"out": s.a(x)}, a=conv(3, 4)), "must return one tensor"),
    "the input is the output": (Net(lambda s, x: x), "last operator"),
    "an output from the middle": (
        Net(lambda s, x: (s.a(x), s.b(x))[0], a=conv(3, 4), b=conv(3, 4)),
        "last operator",
    ),
    "broadcasting": (
        Net(lambda s, x: s.a(x) + s.a_mean(x.mean((2, 3), True)), a=conv(3, 4), a_mean=nn.Conv2d(3, 4, 1)),
        "broadcasting",
    ),
    "add of a number": (Net(lambda s, x: s.a(x) + 1.0, a=conv(3, 4)), "add.*two tensors"),
    "scaled add": (Net(lambda s, x: torch.add(s.a(x), x, alpha=2), a=conv(3, 3)), "add.*two tensors"),
    "reflected padding": (nn.Sequential(conv(3, 4, padding_mode="reflect")), "0.*padding_mode 'reflect'"),
    "ceil_mode": (nn.Sequential(conv(3, 4), nn.MaxPool2d(3, 2, ceil_mode=True)), "1.*ceil_mode"),
    "ceil_mode of a function": (Net(lambda s, x: F.avg_pool2d(s.a(x), 3, ceil_mode=True), a=conv(3, 4)), "ceil_mode"),
    "pool indices": (Net(lambda s, x: F.max_pool2d(s.a(x), 2, return_indices=True)[0], a=conv(3, 4)), "max_pool"),
    "uncounted padding": (
        nn.Sequential(conv(3, 4), nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
        "count_include_pad",
    ),
    "own divisor": (nn.Sequential(conv(3, 4), nn.AvgPool2d(2, divisor_override=3)), "divisor_override"),
    "uneven adaptive pool": (nn.Sequential(conv(3, 4), nn.AdaptiveAvgPool2d(3)), "1.*8x8 to 3x3.*uneven"),
    "growing adaptive pool": (nn.Sequential(conv(3, 4), nn.AdaptiveAvgPool2d(16)), "8x8 to 16x16"),
    "mean over channels": (Net(lambda s, x: s.a(x).mean(1), a=conv(3, 4)), "mean.*height and width"),
    "mean over all": (Net(lambda s, x: s.a(x).mean(), a=conv(3, 4)), "mean.*height and width"),
    "flatten to 3-D": (nn.Sequential(conv(3, 4), nn.Flatten(2)), "module 1 .Flatten.*features"),
    "flatten of the batch": (Net(lambda s, x: torch.flatten(s.a(x)), a=conv(3, 4)), "flatten.*features"),
    "view across the batch": (Net(lambda s, x: s.a(x).view(-1, 64), a=conv(3, 4)), "view.*features"),
    "linear of an image": (nn.Sequential(conv(3, 4), nn.Linear(8, 8)), "module 1 .Linear.*flatten"),
    "cat of rows": (Net(lambda s, x: torch.cat([s.a(x), x], 2), a=conv(3, 3)), "cat.*dim=1"),
    "cat of images": (Net(lambda s, x: torch.cat([s.a(x), x]), a=conv(3, 3)), "cat.*dim=1"),
    "cat of flattened images": (
        Net(lambda s, x: torch.cat([s.a(x).flatten(1), F.max_pool2d(x, 2).flatten(1)], 1), a=conv(3, 3)),
        "cat.*sizes",
    ),
    "a parameter": (
        Net(lambda s, x: s.a(x) + s.shift, a=conv(3, 4), shift=nn.Parameter(torch.zeros(4, 8, 8))),
        "get_attr shift.*parameter",
    ),
    "control flow": (Net(lambda s, x: x if x.sum() > 0 else -x), "cannot trace Net"),
    "a wrong shape": (nn.Sequential(conv(4, 4)), r"Sequential.*shape \(3, 8, 8\).*channels"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_name(what):
    net, message = REFUSED[what]
    with pytest.raises(BadInput, match=message):
        trace(net, DIMS)


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


class NoInput(nn.Module):
    def forward(self):
        return torch.zeros(1)


@pytest.mark.parametrize("net", [TwoInputs(), NoInput()])
def test_one_input(net):
    with pytest.raises(BadInput, match=f"{type(net).__name__}.*one input"):
        trace(net, DIMS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_weights_that_are_not_finite_name_their_layer(value, where):
    net = seeded(nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 4)))
    with torch.no_grad():
        getattr(net[2], where)[1] = value
    with pytest.raises(BadInput, match="layer 2 .*NaN or infinite"):
        trace(net, DIMS)


@pytest.mark.parametrize(
    ("key", "value"),
    [("weight", np.nan), ("bias", np.inf), ("running_mean", np.nan), ("running_var", -1.0), ("weight", 1e38)],
)
def test_a_batch_norm_that_cannot_be_folded_is_named(key, value):
    net = seeded(nn.Sequential(conv(3, 4), nn.BatchNorm2d(4)))
    with torch.no_grad():
        net[0].weight.mul_(100)
        getattr(net[1], key)[2] = value
    with pytest.raises(BadInput, match="layer 1 .*NaN or infinite"):
        trace(net, DIMS)
