"""The trace estimates against the exact Hessian, by torch's own double differentiation of an independent module."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hawqtvm.quantize import quantize
from hawqtvm.sensitivity import hessian
from tests.nets import BATCH, noise, quantized_net, seeded
from tests.sensitivity.small import COUNT, images, no_log, objective

DIMS = (2, 5, 5)


class Curved(nn.Module):
    """(N, 2, 5, 5) -> (N, 3): every kind of second derivative that a layer meets."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.pool = nn.MaxPool2d(2, 1)
        self.body = nn.Conv2d(3, 3, 3, padding=1)
        self.mean = nn.AvgPool2d(2)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.stem(x)))
        return self.head(self.mean(x + self.body(x)).flatten(1))


@pytest.fixture(scope="module")
def net():
    return seeded(Curved()).double()


@pytest.fixture(scope="module")
def model(net):
    return quantize(seeded(Curved()), [noise(BATCH, DIMS)], "curved")


def exact_hessian(net: nn.Module, name: str, problem, labels: bool) -> torch.Tensor:
    """``(n, n)`` of the mean loss by one layer's weights."""
    x, key = torch.from_numpy(problem.images).double(), f"{name}.weight"
    own = net(x).detach().softmax(1)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(net, {key: weight}, (x,))
        if labels:
            return F.cross_entropy(logits, problem.target)
        return (own * (own.log() - logits.log_softmax(1))).sum(1).mean()

    weight = net.get_parameter(key).detach()
    return torch.autograd.functional.hessian(loss, weight).reshape(weight.numel(), weight.numel())


@pytest.mark.parametrize("labels", [True, False])
def test_probes_are_the_exact_hessians_and_their_mean_its_trace(net, model, labels, monkeypatch):
    problem, drawn = objective(model, labels), []

    def recording(rng, shape, original=hessian.rademacher):
        drawn.append(original(rng, shape))
        return drawn[-1]

    monkeypatch.setattr(hessian, "rademacher", recording)
    samples = hessian.traces(problem, no_log(), 0.1, 300)
    for position, name in enumerate(("stem", "body", "head")):
        exact = exact_hessian(net, name, problem, labels)
        v = drawn[position].reshape(-1).double()
        assert set(v.tolist()) == {-1.0, 1.0}
        assert samples[name][0] == pytest.approx(float(v @ exact @ v), rel=1e-4)
        trace, error = hessian.mean_and_error(samples[name])
        assert error <= 0.1 * trace and len(samples[name]) < 300
        assert abs(trace - float(exact.trace())) < 4 * error


def test_each_layer_stops_when_it_has_settled(model, capsys):
    problem = objective(model, False)
    loose, tight = (hessian.traces(problem, no_log(), tolerance, 60) for tolerance in (0.5, 0.02))
    assert {len(found) for found in loose.values()} == {hessian.LEAST_PROBES}
    assert max(map(len, tight.values())) == 60
    for name, found in tight.items():
        if len(found) < 60:
            assert hessian.relative_error(found) <= 0.02
        np.testing.assert_array_equal(found[: len(loose[name])], loose[name])
    worst = max(tight, key=lambda name: hessian.relative_error(tight[name]))
    warning = f"warning: the trace of {worst} has a standard error of {hessian.relative_error(tight[worst]):.0%}"
    assert f"{warning} after 60 probes; --probes allows more" in capsys.readouterr().err


def test_probes_take_the_images_in_turn(model, monkeypatch):
    images = np.zeros((10, 2, 5, 5))
    assert [hessian.next_images(images, i).tolist() for i in (0, 3)] == [list(range(10))] * 2
    monkeypatch.setattr(hessian, "PROBE_VALUES", 4 * images[0].size + 1)
    assert [hessian.next_images(images, i).tolist() for i in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    monkeypatch.setattr(hessian, "PROBE_VALUES", 1)
    problem = objective(model, False)
    whole = [hessian.probe(problem, i, ["head"]) for i in range(2 * len(problem.images))]
    assert len({value for (value,) in whole}) == len(whole)


def test_the_value_is_the_trace_times_the_squared_error_over_twice_the_size(model):
    found = hessian.measure(objective(model, False), no_log(), 0.2, 60)
    assert {name: set(values) for name, values in found.layers.items()} == {
        "stem": {"8"},
        "body": {"4", "8"},
        "head": {"8"},
    }
    layer, noted = model.layers["body"], found.notes["traces"]["body"]
    for bits in (4, 8):
        error = layer.codes[bits] * layer.scales[bits][:, None, None, None] - layer.weight
        factor = np.square(error).sum() / error.size / 2
        assert found.layers["body"][str(bits)] == pytest.approx(noted["trace"] * factor, rel=1e-5)
        assert found.stderr["body"][str(bits)] == pytest.approx(noted["stderr"] * factor, rel=1e-5)
    assert found.layers["body"]["4"] > 10 * found.layers["body"]["8"] > 0


def test_labels_change_no_layers_hessian_of_a_piecewise_linear_network():
    """The curvature of cross-entropy at the logits is the divergence's, and one layer bends nothing before them."""
    model = quantized_net("residual")
    with_labels, without = (hessian.probe(objective(model, on), 0, list(model.layers)) for on in (True, False))
    assert images(model).labels is not None and len(with_labels) == len(model.layers) and COUNT > 1
    np.testing.assert_allclose(with_labels, without, rtol=1e-3)
