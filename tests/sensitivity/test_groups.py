"""Which layers move together, and which of them meet in a block."""

from itertools import combinations

import pytest

from hawqtvm.frontend.storage import build_graph
from hawqtvm.frontend.trace import trace
from hawqtvm.models import load_model
from hawqtvm.qnn.graph import Step
from hawqtvm.sensitivity.groups import block_pairs, blocks, free_groups, groups
from tests.nets import NETS, quantized_net


@pytest.mark.parametrize("net", NETS)
def test_every_layer_is_in_one_group_and_every_free_group_in_one_block(net):
    graph = quantized_net(net).graph
    together = groups(graph)
    assert sorted(name for group in together for name in group) == sorted(s.name for s in graph.layers)
    assert {group for group in together if len(group) > 1} == {tuple(group) for group in graph.tied()}
    assert [g for block in blocks(graph) for g in block] == free_groups(graph)
    assert {n for g in together if g not in free_groups(graph) for n in g} == set(graph.fixed())


def test_a_residual_network_has_its_blocks():
    found = blocks(quantized_net("residual").graph)
    assert [[set(group) for group in block] for block in found] == [
        [{"same.conv1"}, {"same.conv2"}],
        [{"down.conv1", "down.downsample.0"}, {"down.conv2"}],
    ]


@pytest.mark.parametrize(("model", "count", "most"), [("resnet18", 8, 2), ("resnet50", 16, 3)])
def test_the_blocks_of_the_resnets(model, count, most):
    loaded = load_model(model)
    graph = build_graph(loaded.input_shape, trace(loaded.module, loaded.input_shape)[0])
    found = blocks(graph)
    assert len(found) == count and {len(block) for block in found} == {most}
    for block in found:
        assert len({name.rsplit(".", 1)[0].removesuffix(".downsample") for group in block for name in group}) == 1
    assert len(block_pairs(graph)) == count * most * (most - 1) // 2


def test_a_plain_network_is_cut_at_its_pools_and_a_branch_still_live_keeps_a_block_open():
    dims = (4, 8, 8)
    conv = {"dims": dims, "relu": True}
    steps = [
        Step("stem", "conv2d", ("input",), **conv),
        Step("a", "conv2d", ("stem",), **conv),
        Step("b", "conv2d", ("a",), **conv),
        Step("pool", "max_pool2d", ("b",), (4, 4, 4), kernel=(2, 2), strides=(2, 2)),
        Step("c", "conv2d", ("pool",), (4, 4, 4)),
        Step("first", "add", ("pool", "c"), (4, 4, 4)),
        Step("d", "conv2d", ("first",), (4, 4, 4)),
        Step("inner", "add", ("d", "c"), (4, 4, 4)),
        Step("e", "conv2d", ("inner",), (4, 4, 4)),
        Step("outer", "add", ("e", "first"), (4, 4, 4)),
        Step("fc", "dense", ("outer",), (3, 1, 1)),
    ]
    graph = build_graph(dims, steps)
    assert blocks(graph) == [[("a",), ("b",)], [("c",), ("d",), ("e",)]]
    assert block_pairs(graph) == [*combinations([("a",), ("b",)], 2), *combinations([("c",), ("d",), ("e",)], 2)]
