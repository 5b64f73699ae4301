"""The frontier and the explanations against every plan tried one by one; the pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings

from hawqtvm.allocate import allocate, solve
from hawqtvm.allocate.explain import explain
from hawqtvm.allocate.figure import frontier_figure, layers_figure, write_figure
from hawqtvm.allocate.inputs import table_problem
from hawqtvm.allocate.pareto import pareto
from hawqtvm.allocate.problem import Quantity
from hawqtvm.errors import BadInput
from tests.allocate.nets import problems, table_of

TABLE = Path(__file__).with_name("hawqv3_resnet18.json")
APART = 1e-4


def best_by_trying(problem, over):
    """(over, sensitivity) of the plans of which none is better in one and as good in the other, the dearest first."""
    _, values = table_of(problem)
    pairs = sorted(zip(values[over], values["sensitivity"], strict=True))
    kept = []
    for cost, sensitivity in pairs:
        if not kept or sensitivity < kept[-1][1] - 1e-9:
            kept.append((cost, sensitivity))
    return kept[::-1]


@given(problems(most=6))
@settings(max_examples=8, deadline=None)
def test_the_whole_frontier_is_what_trying_every_plan_finds(problem):
    expected = best_by_trying(problem, "latency")
    steps = np.abs(np.diff(np.array(expected), axis=0))
    assume(steps.size == 0 or steps.min() > APART)
    found = pareto(problem, "latency", {}, None)
    got = [(point.predicted["latency"], point.predicted["sensitivity"]) for point in found]
    assert np.allclose(got, expected, atol=1e-5) and len(got) == len(expected)


@given(problems(most=6))
@settings(max_examples=5, deadline=None)
def test_a_few_points_are_on_the_frontier_with_both_ends(problem):
    expected = best_by_trying(problem, "size")
    steps = np.abs(np.diff(np.array(expected), axis=0))
    assume(steps.size == 0 or steps.min() > APART)
    found = pareto(problem, "size", {}, 3)
    got = [(point.predicted["size"], point.predicted["sensitivity"]) for point in found]
    assert len(got) <= 3 and all(min(np.hypot(*np.subtract(point, e)) for e in expected) < 1e-5 for point in got)
    assert np.allclose([got[0], got[-1]], [expected[0], expected[-1]], atol=1e-5)


@pytest.fixture(scope="module")
def published():
    return table_problem(TABLE)


def with_sensitivity(problem, layer, added):
    """The problem with another sensitivity that 4 bits add to 8 for a layer."""
    known = problem.quantities["sensitivity"]
    changed = Quantity(known.constant, {**known.linear, layer: added}, known.products, known.layers)
    return replace(problem, quantities={**problem.quantities, "sensitivity": changed})


@pytest.mark.parametrize("layer", ["layer3.1.conv2", "layer1.1.conv2", "layer2.0.conv2", "layer3.0.conv2"])
def test_what_is_said_to_flip_a_layer_does_and_no_less(published, layer):
    plan = allocate(published, latency=0.5)
    why, now = explain(plan, layer), plan.bits[layer]
    trade = why.trades["latency"]
    at4 = now == 4

    def bits(problem=published, limit=plan.limits["latency"]):
        return solve(problem, {"latency": limit}).bits[layer]

    more, less = (1.001, 0.999) if at4 else (0.999, 1.001)
    assert bits(with_sensitivity(published, layer, why.flips_beyond * more)) == 12 - now
    assert bits(with_sensitivity(published, layer, why.flips_beyond * less)) == now
    just_below = trade.flips_at - 5e-6 * published.quantities["latency"].span
    assert bits(limit=trade.flips_at if at4 else just_below) == 12 - now
    start = plan.limits["latency"]
    between = np.linspace(start, trade.flips_at, 6)[:-1]
    assert [bits(limit=limit) for limit in between] == [now] * 5
    own = {b: published.quantities["latency"].layers[layer][b] for b in (4, 8)}
    assert trade.gain == pytest.approx(own[8] - own[4]) and trade.price == pytest.approx(why.cost / trade.gain)


def test_ranks_follow_the_price(published):
    plan = allocate(published, latency=0.5)
    trades = [
        explain(plan, layer).trades["latency"] for layer in ("layer4.1.conv2", "layer2.1.conv2", "layer1.0.conv1")
    ]
    assert [trade.rank for trade in trades] == [1, 2, 16] and trades[0].price < trades[1].price < trades[2].price


def test_tied_layers_are_explained_together(published):
    why = explain(allocate(published, latency=0.5), "layer4.0.downsample.0")
    assert why.layers == ("layer4.0.conv1", "layer4.0.downsample.0")
    assert "layer4.0.conv1, layer4.0.downsample.0 have 8 bits" in str(why)


def test_what_was_settled_needs_no_explanation(published):
    plan = allocate(published, latency=0.5, fix={"layer1.0.conv1": 8})
    with pytest.raises(BadInput, match="layer1.0.conv1 was given its 8 bits beforehand"):
        explain(plan, "layer1.0.conv1")
    with pytest.raises(BadInput, match="no layer 'layer1.0.conv3'; the nearest names: layer1.0.conv"):
        explain(plan, "layer1.0.conv3")


def test_pictures_name_every_layer_and_unit_and_are_reproducible(published, tmp_path):
    plans = {f"{limit}": allocate(published, latency=limit) for limit in (0.75, 0.25)}
    written = write_figure(layers_figure(plans), tmp_path / "one.png")
    assert [path.name for path in written] == ["one.png", "one.svg"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    again = write_figure(layers_figure(plans), tmp_path / "two")
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(written, again, strict=True)] == [True, True]
    figure = layers_figure(plans)
    bits, cost, speed, _ = figure.axes
    assert [text.get_text() for text in speed.get_xticklabels()] == list(published.layers)
    shown = [text.get_text() for text in bits.texts]
    assert shown == [str(bits) for plan in plans.values() for bits in plan.bits.values()]
    assert "ms" in speed.get_ylabel() and cost.get_ylabel()
    heights = [bar.get_height() for bar in speed.patches]
    own = published.quantities["latency"].layers
    assert np.allclose(heights, [(own[a][8] - own[a][4]) / 1e3 for a in published.layers])


def test_a_frontier_shows_its_points_in_their_unit(published):
    points = pareto(published, "latency", {}, 4)
    axes = frontier_figure(points, "latency").axes[0]
    assert np.allclose(axes.lines[1].get_xdata(), [point.predicted["latency"] / 1e3 for point in points])
    assert axes.get_xlabel() == "latency (ms)" and "sensitivity" in axes.get_ylabel()


def test_another_ending_is_no_picture(tmp_path):
    with pytest.raises(BadInput, match="png and svg"):
        write_figure(None, tmp_path / "one.pdf")
