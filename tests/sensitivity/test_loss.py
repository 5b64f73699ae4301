"""The measured loss change, against plain numpy and the integer model."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from hawqtvm.qnn.model import Arithmetic
from hawqtvm.qnn.reference import float_logits, last, logits, quantize_input, run_fake
from hawqtvm.sensitivity import loss
from hawqtvm.sensitivity.groups import block_pairs, free_groups
from hawqtvm.sensitivity.objective import Objective
from tests.nets import quantized_net
from tests.sensitivity.small import images, no_log, objective


def losses(problem, at4, integers: bool = False) -> np.ndarray:
    """Each image's loss, of the fake-quantized or the exact integer model's logits ``(N, C, ...)``."""
    model = problem.model
    arithmetic = Arithmetic(model, model.bits(dict.fromkeys(at4, 4)))
    codes = quantize_input(arithmetic.tensors["input"], problem.images)
    scale = arithmetic.tensors[model.graph.output.name].scale
    found = logits(arithmetic, codes) * scale if integers else last(run_fake(arithmetic, codes)).astype("float64")
    if problem.labels:
        return -log_softmax(found, 1)[np.arange(len(found)), problem.target.numpy()]
    target = softmax(float_logits(model, problem.images).astype("float64"), 1)
    each = rel_entr(target, softmax(found, 1)).sum(1)
    return each.reshape(len(each), -1).mean(1)


@pytest.mark.parametrize(
    ("net", "labels"),
    [("residual", True), ("residual", False), ("branches", False), ("pools", True), ("joined output", False)],
)
def test_the_increase_is_the_difference_of_the_mean_losses(net, labels):
    model = quantized_net(net)
    problem, found = objective(model, labels), loss.measure(objective(model, labels), no_log())
    base = losses(problem, ())
    for group in free_groups(model.graph):
        expected = (losses(problem, group) - base).mean()
        assert sum(found.layers[n]["4"] for n in group) == pytest.approx(expected, rel=1e-4, abs=1e-7)
        assert {found.layers[n]["8"] for n in group} == {found.stderr[n]["8"] for n in group} == {0.0}
    for name in model.graph.fixed():
        assert found.layers[name] == {"8": 0.0}


def test_the_integer_model_loses_as_much():
    problem = objective(quantized_net("residual"), False, 200)
    base, exact_base = loss.plan_losses(problem, ()), losses(problem, (), integers=True)
    for group in free_groups(problem.model.graph):
        increase = (loss.plan_losses(problem, group) - base).mean()
        assert increase == pytest.approx((losses(problem, group, integers=True) - exact_base).mean(), rel=0.15)


def test_the_standard_error_is_that_of_the_images_differences():
    model = quantized_net("residual")
    problem = objective(model, True)
    found = loss.measure(problem, no_log())
    change = loss.plan_losses(problem, ["same.conv1"]) - loss.plan_losses(problem, [])
    assert found.stderr["same.conv1"]["4"] == pytest.approx(change.std(ddof=1) / len(change) ** 0.5)


def test_pairs_are_what_both_cost_beyond_their_sum():
    model = quantized_net("residual")
    problem = objective(model, False)
    pairs = loss.measure_pairs(problem, no_log())
    assert [(a, b) for a, b, _ in pairs] == block_pairs(model.graph)
    for first, second, value in pairs:
        mean = {plan: losses(problem, plan).mean() for plan in ((), first, second, first + second)}
        expected = mean[first + second] - mean[first] - mean[second] + mean[()]
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_many_batches_give_what_one_gives(monkeypatch):
    model = quantized_net("residual")
    whole = loss.plan_losses(objective(model, False, 7), ["same.conv2"])
    monkeypatch.setattr("hawqtvm.sensitivity.objective.LARGEST_BATCH", 3)
    parted = objective(model, False, 7)
    assert [len(batch) for batch in parted.batches] == [3, 2, 2]
    np.testing.assert_allclose(loss.plan_losses(parted, ["same.conv2"]), whole, rtol=1e-4)


@pytest.mark.parametrize("labels", [True, False])
def test_the_order_of_the_images_changes_none_of_their_losses(labels):
    model = quantized_net("residual")
    orders = [Objective(model, images(model), labels, seed) for seed in (0, 1)]
    assert not np.array_equal(orders[0].images, orders[1].images)
    first, second = (np.sort(loss.plan_losses(problem, ["same.conv1"])) for problem in orders)
    np.testing.assert_allclose(first, second, rtol=1e-6)


def test_the_float_models_own_logits_diverge_by_nothing_at_all():
    model = quantized_net("residual")
    problem = objective(model, False)
    own = torch.from_numpy(float_logits(model, problem.images))
    assert problem.losses(own, np.arange(len(own))).abs().max() < 1e-14
