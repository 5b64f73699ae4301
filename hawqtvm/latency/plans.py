"""The plans whose measurements tell what each layer takes at each of its bits, before readers of either bits."""

import numpy as np

from hawqtvm.qnn.graph import LAYERS, Graph
from hawqtvm.sensitivity.groups import free_groups

Bits = dict[str, int]


def leaders(graph: Graph) -> dict[str, str]:
    """{layer that a plan may set: the first of those that share its bits}."""
    return {name: group[0] for group in free_groups(graph) for name in group}


def reader(graph: Graph, name: str) -> str | None:
    """The layer nearest behind a step: its bits decide which codes the step's kernel writes."""
    behind = [name]
    while behind:
        tensor = behind.pop(0)
        for step in graph.steps:
            if tensor in step.inputs:
                if step.op in LAYERS:
                    return step.name
                behind.append(step.name)
    return None


def profile_plans(graph: Graph) -> list[Bits]:
    """All at 8, all at 4, and two in which layers and their readers differ, so that every layer meets either reader.

    Where layers feed one another in a circle of odd length, one of its edges never sees different bits: that of the
    first layer, since it is the last one whose kernel also adds and writes for the next.
    """
    leader = leaders(graph)
    colour: dict[str, int] = {}
    for name, first in reversed(leader.items()):
        after = leader.get(reader(graph, name))
        colour.setdefault(first, 0 if after is None else 1 - colour[after])
    names = [step.name for step in graph.layers]

    def plan(four: set[int]) -> Bits:
        return {name: 4 if name in leader and colour[leader[name]] in four else 8 for name in names}

    return [plan(four) for four in (set(), {0, 1}, {0}, {1})]


def random_plans(graph: Graph, count: int, seed: int) -> list[Bits]:
    """Plans of as many different shares of 4 bits, drawn layer by layer (those that share their bits as one)."""
    rng, leader = np.random.default_rng(seed), leaders(graph)
    plans = []
    for share in rng.permutation((np.arange(count) + 0.5) / count):
        drawn = {first: 4 if rng.random() < share else 8 for first in dict.fromkeys(leader.values())}
        plans.append({step.name: drawn.get(leader.get(step.name), 8) for step in graph.layers})
    return plans
