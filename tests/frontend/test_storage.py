"""Which tensors are wide, which are codes, what stays an accumulator, and where a requantization stands."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.frontend.small import Net, assert_same, conv, graph_of
from tests.nets import BranchNet, PooledOutputNet, ResidualNet, VggNet


def kinds(graph) -> dict[str, str]:
    return {name: t.kind for name, t in graph.tensors.items()}


def test_a_residual_network():
    graph = graph_of(ResidualNet(), (3, 10, 10))
    assert kinds(graph) == {
        "input": "input",
        "stem.0": "wide",
        "stem.0.codes": "codes",
        "same.conv1": "codes",
        "same.conv2": "accumulator",
        "same.add": "codes",  # read by the transition block alone, which quantizes it once
        "down.conv1": "codes",
        "down.conv2": "accumulator",
        "down.downsample.0": "wide",
        "down.add": "wide",
        "pool": "codes",
        "fc": "logits",
    }
    assert graph.tied() == [["down.downsample.0", "down.conv1"]]
    assert graph.fixed() == ["stem.0", "fc"]
    assert graph.step("same.conv1").inputs == ("stem.0.codes",)
    assert graph.step("same.add").inputs == ("same.conv2", "stem.0")


def test_one_requantization_for_all_readers_of_a_wide_tensor():
    net = Net(lambda s, x: s.b(y := torch.relu(s.a(x))) + s.c(y) + y, a=conv(3, 4), b=conv(4, 4), c=conv(4, 4, 1))
    graph = graph_of(net)
    assert [s.name for s in graph.steps if s.op == "requantize"] == ["a.codes"]
    assert graph.tied() == [["b", "c"]]
    assert graph.tensors["a.codes"].ranges == "a"


@pytest.mark.parametrize("swapped", [False, True])
def test_the_operand_with_most_multiplications_stays_the_accumulator(swapped):
    def forward(s, x):
        x = torch.relu(s.stem(x))
        if swapped:
            big, small = s.big(x), s.small(x)
            return s.head(small + big)
        small, big = s.small(x), s.big(x)
        return s.head(big + small)

    graph = graph_of(Net(forward, stem=conv(3, 4), big=conv(4, 4, 3), small=conv(4, 4, 1), head=conv(4, 2)))
    assert kinds(graph)["big"] == "accumulator"
    assert kinds(graph)["small"] == "wide"
    assert graph.step("add").inputs == ("big", "small")


@pytest.mark.parametrize("swapped", [False, True])
def test_of_equals_the_deeper_operand_stays_the_accumulator(swapped):
    def forward(s, x):
        x = torch.relu(s.stem(x))
        if swapped:
            return s.head(s.shortcut(x) + s.second(torch.relu(s.first(x))))
        return s.head(s.second(torch.relu(s.first(x))) + s.shortcut(x))

    modules = {name: conv(4, 4) for name in ("first", "second", "shortcut")}
    graph = graph_of(Net(forward, stem=conv(3, 4), head=conv(4, 2), **modules))
    assert kinds(graph)["second"] == "accumulator"
    assert kinds(graph)["shortcut"] == "wide"


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: torch.relu(s.a(x)) + x,  # clipped before the add
        lambda s, x: s.b(y := s.a(x)) + y + x,  # y is read twice
        lambda s, x: F.max_pool2d(s.a(x), 3, 1, 1) + x,  # no layer makes it
    ],
)
def test_what_cannot_stay_an_accumulator(forward):
    graph = graph_of(Net(forward, a=conv(3, 3), b=conv(3, 3)))
    assert kinds(graph)["a"] == "wide"


def test_an_add_of_a_tensor_to_itself_has_no_accumulator():
    graph = assert_same(Net(lambda s, x: s.b((y := s.a(x)) + y), a=conv(3, 3), b=conv(3, 3)))
    assert kinds(graph)["a"] == "wide"


def test_branches_of_a_concat_share_its_range_and_format():
    graph = graph_of(BranchNet(), (3, 8, 8))
    cat, again = (s for s in graph.steps if s.op == "concat")
    # shared is read by another layer too, and the pool cannot rescale
    assert cat.inputs == ("cat.branch0", "plain", "cat.branch2")
    assert graph.step("cat.branch0").inputs == ("shared",)
    assert graph.step("cat.branch2").inputs == ("pool",)
    assert again.inputs == ("join", "side")
    for step in (cat, again):
        assert {(graph.tensors[n].group, graph.tensors[n].ranges) for n in step.inputs} == {
            (graph.tensors[step.name].group, step.name)
        }
    assert graph.readers(graph.tensors["cat"].group) == ["join"]


def test_both_sides_of_a_max_pool_are_one_tensor():
    graph = graph_of(VggNet(), (3, 8, 8))
    conv1, pool = graph.tensors["features.0"], graph.tensors["features.2"]
    assert (
        (conv1.group, conv1.ranges, conv1.kind)
        == (pool.group, pool.ranges, pool.kind)
        == (
            "features.0",
            "features.0",
            "codes",
        )
    )


def test_what_an_average_pool_reads_is_wide():
    graph = graph_of(PooledOutputNet(), (3, 8, 8))
    assert kinds(graph) == {
        "input": "input",
        "stem": "codes",
        "middle": "codes",
        "last": "wide",
        "pool": "logits",
    }
    assert graph.fixed() == ["stem", "last"]


def test_the_input_stays_the_input_behind_a_max_pool_and_in_a_concat():
    pooled = graph_of(nn.Sequential(nn.MaxPool2d(2), conv(3, 4), conv(4, 2)))
    assert kinds(pooled)["0"] == "input"
    assert pooled.fixed() == ["1", "2"]
    joined = assert_same(Net(lambda s, x: s.b(torch.cat([x, s.a(x)], 1)), a=conv(3, 4), b=conv(7, 2)))
    assert joined.step("cat").inputs == ("cat.branch0", "a")
    assert joined.step("cat.branch0").inputs == ("input",)
    assert kinds(joined)["cat.branch0"] == "codes"
