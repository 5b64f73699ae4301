"""The plans of a latency profile: every layer at both bits, before readers of both."""

import pytest

from hawqtvm.frontend.storage import build_graph
from hawqtvm.frontend.trace import trace
from hawqtvm.latency.plans import leaders, profile_plans, random_plans, reader
from hawqtvm.models import load_model
from tests.nets import NETS, quantized_net


@pytest.mark.parametrize("net", NETS)
def test_plans_fit_the_model(net):
    model = quantized_net(net)
    for bits in [*profile_plans(model.graph), *random_plans(model.graph, 3, 0)]:
        assert model.bits(bits) == bits


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_every_layer_of_a_resnet_meets_readers_of_both_bits(name):
    """But for ResNet-18's downsampling layers: two layers lie beside one, so that it and their reader are alike."""
    loaded = load_model(name)
    graph = build_graph(loaded.input_shape, trace(loaded.module, loaded.input_shape)[0])
    leader, plans = leaders(graph), profile_plans(graph)
    for layer in leader:
        after = leader.get(reader(graph, layer))
        met = {(bits[layer], after and bits[after]) for bits in plans}
        if after is None:
            assert met == {(4, None), (8, None)}
        elif name == "resnet18" and "downsample" in layer:
            assert met == {(4, 4), (8, 8)}
        else:
            assert met == {(4, 4), (4, 8), (8, 4), (8, 8)}


def test_the_reader_is_the_nearest_layer_behind_joins_and_pools():
    graph = quantized_net("residual").graph
    assert reader(graph, "same.conv1") == "same.conv2"
    assert reader(graph, "same.conv2") in ("down.conv1", "down.downsample.0")
    assert reader(graph, graph.output.name) is None


def test_random_plans_have_different_shares_of_4_bits():
    graph = quantized_net("residual").graph
    plans = random_plans(graph, 40, 0)
    shares = {sum(bits[name] == 4 for name in leaders(graph)) for bits in plans}
    assert len(shares) >= 4 and random_plans(graph, 40, 0) == plans != random_plans(graph, 40, 1)
