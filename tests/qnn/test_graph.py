"""The graph's ties and fixed layers, and its JSON."""

import json

import pytest

from hawqtvm.errors import BadInput
from hawqtvm.frontend.storage import build_graph
from hawqtvm.qnn.graph import Graph, Step
from tests.nets import NETS, quantized_net
from tests.qnn.small import pointwise

DIMS = (2, 4, 4)


@pytest.mark.parametrize("name", NETS)
def test_json_and_back(name):
    graph = quantized_net(name).graph
    assert Graph.from_json(json.loads(json.dumps(graph.to_json()))) == graph


def test_ties_fixed_layers_and_readers():
    steps = [
        pointwise("first", "input", DIMS, 2),
        pointwise("side", "input", DIMS, 2),
        Step("pool", "max_pool2d", ("first",), (2, 4, 4)),
        pointwise("a", "first", DIMS, 2),
        pointwise("b", "pool", DIMS, 2),
        Step("cat", "concat", ("a", "b", "side"), (6, 4, 4)),
        pointwise("last", "cat", (6, 4, 4), 2),
    ]
    graph = build_graph(DIMS, steps)
    # a reads the pool's input and b its output: one tensor's codes
    assert graph.tied() == [["first", "side"], ["a", "b"]]
    assert graph.fixed() == ["first", "side", "last"]
    assert graph.readers(graph.tensors["cat"].group) == ["last"]
    assert graph.dims("input") == DIMS
    assert graph.dims("cat") == (6, 4, 4)


def test_what_shares_a_tensor_with_a_fixed_layer_is_fixed():
    steps = [
        pointwise("first", "input", DIMS, 2),
        pointwise("middle", "first", DIMS, 2),
        pointwise("other", "middle", DIMS, 2),
        Step("pool", "avg_pool2d", ("other",), (2, 1, 1), kernel=(4, 4), strides=(4, 4)),
        Step("up", "requantize", ("pool",), (2, 1, 1)),
        pointwise("last", "middle", DIMS, 2),
    ]
    assert build_graph(DIMS, steps).fixed() == ["first", "other", "last"]


def test_every_layer_right_before_the_output_is_fixed():
    steps = [
        pointwise("first", "input", DIMS, 2),
        pointwise("middle", "first", DIMS, 2),
        pointwise("left", "middle", DIMS, 2),
        pointwise("deeper", "left", DIMS, 2),
        Step("add", "add", ("left", "deeper"), DIMS),
    ]
    assert build_graph(DIMS, steps).fixed() == ["first", "left", "deeper"]


def damaged(change) -> dict:
    data = json.loads(json.dumps(build_graph(DIMS, [pointwise("only", "input", DIMS, 2)]).to_json()))
    change(data)
    return data


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("steps"),
        lambda d: d.pop("tensors"),
        lambda d: d.update(steps=[]),
        lambda d: d.update(steps=3),
        lambda d: d.update(input_dims=[2, 4]),
        lambda d: d.update(input_dims=None),
        lambda d: d["tensors"].pop("only"),
        lambda d: d["tensors"].pop("input"),
        lambda d: d["tensors"]["only"].pop("kind"),
        lambda d: d["tensors"]["only"].update(kind="half"),
        lambda d: d["tensors"]["only"].update(ranges="nowhere"),
        lambda d: d["steps"][0].pop("op"),
        lambda d: d["steps"][0].update(op="softmax"),
        lambda d: d["steps"][0].update(inputs=["nowhere"]),
        lambda d: d["steps"][0].update(inputs=[]),
        lambda d: d["steps"][0].update(bits=4),
        lambda d: d["steps"].append(d["steps"][0]),
    ],
)
def test_a_damaged_graph_is_bad_input(change):
    with pytest.raises(BadInput, match="graph is damaged"):
        Graph.from_json(damaged(change))


@pytest.mark.parametrize("data", [None, [], 3, "graph"])
def test_no_graph_at_all(data):
    with pytest.raises(BadInput, match="graph is damaged"):
        Graph.from_json(data)
