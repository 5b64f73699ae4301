"""From kernels' times under some plans to what each layer costs at each of its bits: a model that adds up."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hawqtvm.latency.plans import Bits, leaders, reader
from hawqtvm.qnn.graph import LAYERS, Graph


@dataclass(frozen=True)
class Edge:
    """Microseconds that ``source`` takes more, or less, at 4 bits before a reader at 8, and at 8 before one at 4."""

    source: str
    target: str
    down: float
    up: float

    def at(self, bits: Bits) -> float:
        return {(4, 8): self.down, (8, 4): self.up}.get((bits[self.source], bits[self.target]), 0.0)


@dataclass(frozen=True)
class Costs:
    """Microseconds a call.  ``layers``: {layer: {bits: us}}, before a reader of the same bits; ``other``: all else."""

    layers: dict[str, dict[int, float]]
    edges: list[Edge]
    other: float

    def predict(self, bits: Bits) -> float:
        """Of a plan {layer: 4 or 8}."""
        own = sum(self.layers[name][b] for name, b in bits.items())
        return own + sum(edge.at(bits) for edge in self.edges) + self.other


def attribute(graph: Graph, plans: Sequence[Bits], times: Sequence[dict[str, float]]) -> Costs:
    """``times``: {layer or tensor: us of its kernel} under each plan; a tensor without a kernel took none.

    A layer's time depends on its bits and its reader's.  What is no layer (pools, requantizations) depends on its
    reader's bits only, and is counted as that layer's.
    """
    leader, names = leaders(graph), {step.name for step in graph.layers}
    layers: dict[str, dict[int, float]] = {name: defaultdict(float) for name in names}
    edges, other = [], 0.0
    for kernel in dict.fromkeys(name for found in times for name in found):
        target = leader.get(reader(graph, kernel))
        samples = defaultdict(list)
        for bits, found in zip(plans, times, strict=True):
            own = bits[kernel] if kernel in names else None
            samples[own, target and bits[target]].append(found.get(kernel, 0.0))
        us = {combination: float(np.mean(values)) for combination, values in samples.items()}
        if kernel in names:
            for bits in sorted({own for own, _ in us}):
                layers[kernel][bits] += us[bits, target and bits]
            if target is not None:
                down, up = (us[pair] - us[pair[0], pair[0]] if pair in us else 0.0 for pair in ((4, 8), (8, 4)))
                edges.append(Edge(kernel, target, down, up))
        elif target is not None:
            for bits in (4, 8):
                layers[target][bits] += us[None, bits]
        else:
            other += us[None, None]
    ordered = {step.name: dict(layers[step.name]) for step in graph.steps if step.op in LAYERS}
    return Costs(ordered, edges, other)
