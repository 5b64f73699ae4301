"""Costs found from four plans predict any plan of a network whose kernels cost what is assumed of them."""

import numpy as np
import pytest

from hawqtvm.latency.attribute import attribute
from hawqtvm.latency.plans import leaders, profile_plans, random_plans, reader
from hawqtvm.qnn.graph import LAYERS
from tests.nets import quantized_net


def kernels(graph, bits: dict[str, int], seed: int) -> dict[str, float]:
    """Times that depend on a kernel's own bits and its reader's; a requantization only before a reader at 4."""
    leader, found = leaders(graph), {}
    for number, step in enumerate(graph.steps):
        after = leader.get(reader(graph, step.name))
        own = bits.get(step.name, 0)
        rng = np.random.default_rng([seed, number, own, bits[after] if after else 0])
        if step.op in LAYERS or not after or bits[after] == 4:
            found[step.name] = rng.uniform(1, 100)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_predicts_every_plan(seed):
    graph = quantized_net("residual").graph
    plans = profile_plans(graph)
    costs = attribute(graph, plans, [kernels(graph, bits, seed) for bits in plans])
    for bits in [*plans, *random_plans(graph, 20, seed)]:
        assert costs.predict(bits) == pytest.approx(sum(kernels(graph, bits, seed).values()))


def test_fixed_layers_have_8_bits_only_and_the_others_both():
    graph = quantized_net("residual").graph
    plans = profile_plans(graph)
    costs = attribute(graph, plans, [kernels(graph, bits, 0) for bits in plans])
    assert list(costs.layers) == [step.name for step in graph.layers]
    for name, us in costs.layers.items():
        assert set(us) == ({8} if name in graph.fixed() else {4, 8})
