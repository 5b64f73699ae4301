"""Every supported operator: traced, it computes what the module does, under the module's name."""

import operator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hawqtvm.frontend.trace import trace
from tests.frontend.small import DIMS, Net, assert_same, conv
from tests.nets import NETS, Block, conv_norm, seeded


def after_conv(function, channels: int = 4, **modules) -> Net:
    """A convolution, then ``function`` of its result."""
    return Net(lambda s, x: function(s, s.conv(x)), conv=conv(3, channels), **modules)


@pytest.mark.parametrize("name", NETS)
def test_whole_networks(name):
    build, dims = NETS[name]
    net = build()
    graph = assert_same(net, dims)
    paths = [path for path, part in net.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert sorted(s.name for s in graph.layers) == sorted(paths)


def test_functions_are_named_after_the_module_that_calls_them():
    names = [s.name for s in assert_same(NETS["residual"][0](), (3, 10, 10)).steps]
    assert {"same.add", "down.add", "pool"} <= set(names)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(3, 4, (3, 1), stride=(1, 2), padding=(1, 0)),
        nn.Conv2d(3, 4, 3, dilation=2, padding="same"),
        nn.Conv2d(3, 4, 4, padding="same"),
        nn.Conv2d(3, 4, 3, padding="valid", bias=False),
        nn.Conv2d(3, 6, 3, groups=3),
    ],
)
def test_convolutions(layer):
    assert_same(nn.Sequential(layer))


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (lambda s, x: F.relu(x), None),
        (lambda s, x: F.relu(input=x, inplace=True), None),
        (lambda s, x: torch.relu(input=x), None),
        (lambda s, x: x.relu(), None),
        (lambda s, x: x.relu_(), None),
        (lambda s, x: F.relu6(x), None),
        (lambda s, x: torch.relu(torch.relu(F.relu6(x))), None),
        (lambda s, x: F.max_pool2d(x, 2), "max_pool2d"),
        (lambda s, x: F.max_pool2d(x, 3, 2, 1), "max_pool2d"),
        (lambda s, x: F.max_pool2d(x, kernel_size=(3, 2), stride=1, dilation=2), "max_pool2d"),
        (lambda s, x: torch.max_pool2d(x, 3, 1, 1), "max_pool2d"),
        (lambda s, x: F.avg_pool2d(x, 3, 2, 1), "avg_pool2d"),
        (lambda s, x: F.avg_pool2d(x, kernel_size=(2, 1)), "avg_pool2d"),
        (lambda s, x: F.avg_pool2d(x, 3, count_include_pad=False), "avg_pool2d"),
        (lambda s, x: F.avg_pool2d(x, x.size()[2:]), "avg_pool2d"),
        (lambda s, x: F.avg_pool2d(x, (x.shape[2], x.size(3))), "avg_pool2d"),
        (lambda s, x: F.adaptive_avg_pool2d(x, 1), "avg_pool2d"),
        (lambda s, x: F.adaptive_avg_pool2d(x, (4, 2)), "avg_pool2d"),
        (lambda s, x: F.adaptive_avg_pool2d(x, (None, 1)), "avg_pool2d"),
        (lambda s, x: x.mean((2, 3)), "avg_pool2d"),
        (lambda s, x: x.mean(dim=[-1, -2], keepdim=True), "avg_pool2d"),
        (lambda s, x: torch.mean(x, (2, 3)), "avg_pool2d"),
        (lambda s, x: F.dropout(x, 0.5, s.training), None),
        (lambda s, x: x.contiguous(), None),
        (lambda s, x: x + x, "add"),
        (lambda s, x: torch.add(x, x), "add"),
        (lambda s, x: torch.add(x, other=torch.relu(x)), "add"),
        (lambda s, x: x.add(x), "add"),
        (lambda s, x: torch.relu(x).add_(x), "add"),
        (lambda s, x: operator.iadd(torch.relu(x), x), "add"),
        (lambda s, x: torch.cat([x, torch.relu(x)], 1), "concat"),
        (lambda s, x: torch.cat((x, x), dim=-3), "concat"),
        (lambda s, x: torch.concat(tensors=[x, F.max_pool2d(x, 3, 1, 1)], dim=1), "concat"),
        (lambda s, x: torch.cat([torch.cat([x, x], 1), x], 1), "concat"),
    ],
)
def test_functions_and_methods(function, op):
    graph = assert_same(after_conv(function))
    assert (graph.steps[-1].op == op) if op else graph.steps[-1].op == "conv2d"


@pytest.mark.parametrize(
    ("module", "op"),
    [
        (nn.ReLU(), "conv2d"),
        (nn.ReLU(inplace=True), "conv2d"),
        (nn.ReLU6(), "conv2d"),
        (nn.Dropout(), "conv2d"),
        (nn.Dropout2d(), "conv2d"),
        (nn.Identity(), "conv2d"),
        (nn.BatchNorm2d(4), "conv2d"),
        (nn.MaxPool2d(3, 2, 1), "max_pool2d"),
        (nn.MaxPool2d((1, 2), dilation=(1, 2)), "max_pool2d"),
        (nn.AvgPool2d(3, 2, 1), "avg_pool2d"),
        (nn.AdaptiveAvgPool2d(2), "avg_pool2d"),
        (nn.Sequential(nn.MaxPool2d(2), nn.ReLU()), "requantize"),
        (nn.Sequential(nn.AvgPool2d(2), nn.ReLU6()), "avg_pool2d"),
    ],
)
def test_modules(module, op):
    graph = assert_same(nn.Sequential(conv(3, 4), module))
    assert graph.steps[-1].op == op


@pytest.mark.parametrize(
    "flatten",
    [
        nn.Flatten(),
        Net(lambda s, x: torch.flatten(x, 1)),
        Net(lambda s, x: x.flatten(1)),
        Net(lambda s, x: x.flatten(start_dim=1)),
        Net(lambda s, x: x.view(x.size(0), -1)),
        Net(lambda s, x: x.view(x.shape[0], 4 * 8 * 8)),
        Net(lambda s, x: x.reshape(x.size(0), x.size(1) * x.size(2) * x.size(3))),
        Net(lambda s, x: torch.reshape(x, (-1, 256))),
    ],
)
def test_flattening_into_a_linear_layer(flatten):
    graph = assert_same(nn.Sequential(conv(3, 4), flatten, nn.Linear(256, 5), nn.ReLU(), nn.Linear(5, 3)))
    assert [(s.name, s.op, s.kernel) for s in graph.steps] == [
        ("0", "conv2d", (3, 3)),
        ("2", "conv2d", (8, 8)),
        ("4", "dense", (1, 1)),
    ]


@pytest.mark.parametrize(
    "function",
    [
        lambda s, x: torch.relu(F.max_pool2d(x, 2).flatten(1)),
        lambda s, x: x.flatten(1) + torch.relu(x).flatten(1),
        lambda s, x: torch.cat([x.flatten(1), torch.relu(x).flatten(1)], 1),
        lambda s, x: torch.cat([x.mean((2, 3)), F.adaptive_avg_pool2d(x, 1).flatten(1)], -1),
    ],
)
def test_operators_on_flattened_images(function):
    net = seeded(after_conv(function))
    with torch.no_grad():
        features = net(torch.zeros(1, *DIMS)).shape[1]
    assert_same(nn.Sequential(net, nn.Linear(features, 3)))


def test_a_linear_model_of_the_image():
    graph = assert_same(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    assert [(s.op, s.kernel) for s in graph.steps] == [("conv2d", (8, 8))]


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, eps=0.5)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_is_folded(norm, bias):
    graph = assert_same(nn.Sequential(conv(3, 4, bias=bias), norm, nn.ReLU()))
    assert [s.op for s in graph.steps] == ["conv2d"]


def test_folding_equals_the_formula():
    net = seeded(conv_norm(3, 4, 3))
    _, weights = trace(net, DIMS)
    norm = net[1]
    factor = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach().numpy()
    weight, bias = weights["0"]
    np.testing.assert_allclose(weight, net[0].weight.detach().numpy() * factor[:, None, None, None], rtol=1e-6)
    expected = norm.bias.detach().numpy() - norm.running_mean.numpy() * factor
    np.testing.assert_allclose(bias, expected, rtol=1e-5, atol=1e-6)
    assert weight.dtype == bias.dtype == np.float32


def test_two_batch_norms_in_a_row_and_one_behind_a_no_op():
    graph = assert_same(nn.Sequential(conv(3, 4), nn.Identity(), nn.BatchNorm2d(4), nn.BatchNorm2d(4)))
    assert len(graph.steps) == 1


def test_tracing_leaves_the_module_as_it_was():
    net = seeded(Block(3, 4))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    trace(net, DIMS)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


# -- names --


def test_a_module_may_be_called_as_a_function_is():
    net = Net(
        lambda s, x: s.relu(s.add(torch.relu(s.conv(x)) + s.input(x))),
        conv=conv(3, 4),
        input=conv(3, 4),
        add=conv(4, 4),
        relu=nn.ReLU(),
    )
    graph = assert_same(net)
    assert [s.name for s in graph.layers] == ["conv", "input_2", "add"]


def test_functions_called_twice_are_numbered():
    graph = assert_same(after_conv(lambda s, x: F.max_pool2d(F.max_pool2d(x, 2), 2)))
    assert [s.name for s in graph.steps] == ["conv", "max_pool", "max_pool_2"]


def test_a_module_without_weights_may_be_called_twice():
    graph = assert_same(after_conv(lambda s, x: s.pool(s.pool(x)), pool=nn.MaxPool2d(2)))
    assert [s.name for s in graph.steps] == ["conv", "pool", "pool_2"]


# -- activations --


def test_a_relu_that_shares_its_operand_stands_alone():
    graph = assert_same(after_conv(lambda s, x: torch.relu(x) + s.other(x), other=conv(4, 4)))
    assert [(s.op, s.relu) for s in graph.steps if not s.name.endswith(".codes")] == [
        ("conv2d", False),
        ("requantize", True),
        ("conv2d", False),
        ("add", False),
    ]


def test_relus_are_fused_and_the_least_ceiling_wins():
    steps = assert_same(after_conv(lambda s, x: F.relu(F.relu6(x)) + F.relu6(x))).steps
    assert [(s.relu, s.ceiling) for s in steps if s.op == "requantize"] == [(True, 6.0)] * 2
    steps = assert_same(after_conv(lambda s, x: F.relu6(F.relu(x)))).steps
    assert [(s.relu, s.ceiling) for s in steps] == [(True, 6.0)]


@pytest.mark.parametrize(
    "change",
    [
        lambda s, x: s.relu(x),
        lambda s, x: F.relu(x, inplace=True),
        lambda s, x: F.relu6(x, True),
        lambda s, x: x.relu_(),
        lambda s, x: x.add_(s.other(x)),
    ],
)
def test_what_is_changed_in_place_is_changed_for_later_readers(change):
    def forward(s, x):
        before = s.third(x)
        changed = change(s, x)
        return before + s.second(changed) + x

    modules = {name: conv(4, 4) for name in ("second", "third", "other")}
    assert_same(after_conv(forward, relu=nn.ReLU(inplace=True), **modules))


def test_a_result_that_is_dropped_still_counts():
    def forward(s, x):
        x.relu_()
        return s.second(x)

    assert_same(after_conv(forward, second=conv(4, 4)))
