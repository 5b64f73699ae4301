"""Gradient times error at each layer's output, by finite differences in the unfolded float64 module."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hawqtvm.qnn.model import Arithmetic
from hawqtvm.sensitivity import fisher, loss
from hawqtvm.sensitivity.groups import free_groups
from tests.nets import NETS, quantized_net, seeded
from tests.sensitivity.small import no_log, objective

STEP = 1e-4
# where the module computes what a folded layer does
OUTPUTS = {
    "stem.0": "stem.1",
    "same.conv1": "same.bn1",
    "same.conv2": "same.bn2",
    "down.conv1": "down.bn1",
    "down.conv2": "down.bn2",
    "down.downsample.0": "down.downsample.1",
}


def codes_of(x: torch.Tensor, scale: float, zero_point: int, levels: int) -> torch.Tensor:
    return ((x / scale + 0.5).floor() + zero_point).clamp(0, levels - 1)


def errors(net, model, problem, bits: int) -> dict[str, torch.Tensor]:
    """What quantized weights on quantized input change at each layer's output, float64."""
    read, found, hooks = {}, {}, []
    for name in OUTPUTS:
        hooks.append(
            net.get_submodule(name).register_forward_hook(
                lambda _, inputs, out, n=name: read.__setitem__(n, inputs[0].detach())
            )
        )
    net(torch.from_numpy(problem.images).double())
    for hook in hooks:
        hook.remove()
    arithmetic = Arithmetic(model, model.bits(bits))
    for name, x in read.items():
        conv, layer = net.get_submodule(name), model.layers[name]
        q, own = arithmetic.tensors[arithmetic.graph.step(name).inputs[0]], arithmetic.layer_bits[name]
        coarse = (codes_of(x, q.scale, q.zero_point, 2 ** int(q.code[4:])) - q.zero_point) * q.scale
        real = torch.from_numpy(layer.codes[own] * layer.scales[own][:, None, None, None]).double()
        pair = [(coarse, real), (x, torch.from_numpy(layer.weight).double())]
        after, before = (F.conv2d(value, weight, None, conv.stride, conv.padding) for value, weight in pair)
        found[name] = after - before
    return found


def slopes(net, problem, added: dict[str, torch.Tensor]) -> np.ndarray:
    """Derivative of each image's cross-entropy along the errors of a group, ``(N,)``."""

    def losses(t: float) -> torch.Tensor:
        hooks = [
            net.get_submodule(OUTPUTS[name]).register_forward_hook(lambda *args, e=error: args[-1] + t * e)
            for name, error in added.items()
        ]
        with torch.no_grad():
            logits = net(torch.from_numpy(problem.images).double())
        for hook in hooks:
            hook.remove()
        return F.cross_entropy(logits, problem.target, reduction="none")

    return ((losses(STEP) - losses(-STEP)) / (2 * STEP)).numpy()


def test_scores_are_the_derivatives_along_the_errors_of_weights_and_inputs():
    model, net = quantized_net("residual"), seeded(NETS["residual"][0]()).double()
    problem = objective(model, True)
    found = fisher.scores(problem, no_log())
    assert {bits for group, bits in found if group == ("stem.0",)} == {8}
    for bits in (4, 8):
        added = errors(net, model, problem, bits)
        for group in free_groups(model.graph):
            expected = slopes(net, problem, {name: added[name] for name in group})
            np.testing.assert_allclose(found[group, bits], expected, rtol=2e-2, atol=2e-5)


def test_values_are_slope_and_half_the_mean_square():
    model = quantized_net("residual")
    for labels in (True, False):
        problem = objective(model, labels)
        scores, found = fisher.scores(problem, no_log()), fisher.measure(problem, no_log())
        for (group, bits), s in scores.items():
            samples = s**2 / 2 + (s if labels else 0)
            assert sum(found.layers[n][str(bits)] for n in group) == pytest.approx(samples.mean())
            error = samples.std(ddof=1) / len(s) ** 0.5
            assert sum(found.stderr[n][str(bits)] for n in group) == pytest.approx(error)
            assert len({found.layers[n][str(bits)] for n in group}) == 1


class EverySign:
    """Gives, in place of random signs, all combinations in turn."""

    def __init__(self, classes: int):
        self.signs = product((0, 1), repeat=classes)

    def integers(self, low, high, shape, dtype):
        assert shape[0] == shape[2] == 1
        return np.array(next(self.signs), dtype).reshape(shape)


def test_the_drawn_gradients_have_the_fisher_information_of_the_logits():
    model = quantized_net("vgg")
    problem = objective(model, False)
    p, outer = problem.target[:1, :, 0], 0
    classes = p.shape[1]
    rng = EverySign(classes)
    for _ in range(2**classes):
        logits = torch.zeros(1, classes, requires_grad=True)
        (g,) = torch.autograd.grad(problem.score(logits, np.array([0]), rng), logits)
        outer = outer + g.T @ g / 2**classes
    np.testing.assert_allclose(outer, torch.diag(p[0]) - p.T @ p, atol=1e-6)


@pytest.mark.parametrize("net", ["residual", "vgg", "joined output"])
def test_unlabelled_estimates_come_near_the_measured_loss(net):
    model = quantized_net(net)
    problem = objective(model, False, 200)
    estimate, measured = fisher.measure(problem, no_log()), loss.measure(problem, no_log())
    for group in free_groups(model.graph):
        totals = [sum(found.layers[n]["4"] for n in group) for found in (estimate, measured)]
        assert 0.4 < totals[0] / totals[1] < 2.5, (group, totals)
