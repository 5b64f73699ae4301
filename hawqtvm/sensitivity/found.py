"""What a method finds: a mean and its standard error for each layer and bit width."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hawqtvm.errors import BadInput
from hawqtvm.sensitivity.groups import Group

ByBits = dict[str, float]


@dataclass
class Found:
    """``layers``, ``stderr``: {layer: {"4": ..., "8": ...}}, in nats.  ``notes``: what the method says of its run."""

    layers: dict[str, ByBits] = field(default_factory=dict)
    stderr: dict[str, ByBits] = field(default_factory=dict)
    notes: dict = field(default_factory=dict)

    def add(self, group: Group, bits: int, samples: np.ndarray) -> None:
        """The mean of independent samples ``(n,)`` of a group's loss increase, in equal shares for its layers."""
        if not np.isfinite(samples).all():
            raise BadInput(f"layer {group[0]}: its sensitivity is not finite; check the weights and the images")
        mean, error = mean_and_error(samples)
        for name in group:
            self.layers.setdefault(name, {})[str(bits)] = mean / len(group)
            self.stderr.setdefault(name, {})[str(bits)] = error / len(group)


def mean_and_error(samples: Sequence[float]) -> tuple[float, float]:
    """The mean of two or more samples and its standard error."""
    return float(np.mean(samples)), float(np.std(samples, ddof=1) / len(samples) ** 0.5)
