"""The loss change itself, one group of layers at a time, and of two at once: the oracle, at a run a group."""

from collections.abc import Sequence

import numpy as np
import torch

from hawqtvm.console import Progress
from hawqtvm.qnn.model import Arithmetic
from hawqtvm.qnn.reference import last, quantize_input, run_fake
from hawqtvm.sensitivity.found import Found
from hawqtvm.sensitivity.groups import Group, block_pairs, free_groups, groups
from hawqtvm.sensitivity.log import Log
from hawqtvm.sensitivity.objective import Objective


def plan_losses(objective: Objective, at4: Sequence[str]) -> np.ndarray:
    """Each image's loss ``(N,)``, float64, of the fake-quantized network with the layers ``at4`` at 4 bits, else 8."""
    model = objective.model
    arithmetic = Arithmetic(model, model.bits(dict.fromkeys(at4, 4)))
    q, parts = arithmetic.tensors["input"], []
    for batch in objective.batches:
        logits = last(run_fake(arithmetic, quantize_input(q, objective.images[batch])))
        parts.append(objective.losses(torch.from_numpy(logits), batch))
    return torch.cat(parts).numpy()


def measure(objective: Objective, log: Log) -> Found:
    """Loss with a group's weights and inputs at 4 bits less the loss with all at 8; 0, by that, at 8 bits.

    The standard error is that of the images: both runs see the same ones.
    """
    graph, found = objective.model.graph, Found()
    free = free_groups(graph)
    with Progress("plans", 1 + len(free)) as progress:
        base = logged(objective, log, ())
        progress("8 bits")
        for group in groups(graph):
            found.add(group, 8, np.zeros_like(base))
            if group in free:
                found.add(group, 4, logged(objective, log, group) - base)
                progress(group[0])
    return found


def measure_pairs(objective: Objective, log: Log) -> list[tuple[Group, Group, float]]:
    """Of each two groups of a block: loss with both at 4 bits, less with each alone, plus with none (CLADO)."""
    pairs = block_pairs(objective.model.graph)
    base, found = logged(objective, log, ()), []
    with Progress("pairs", len(pairs)) as progress:
        for first, second in pairs:
            both = logged(objective, log, first + second)
            alone = [logged(objective, log, group) for group in (first, second)]
            found.append((first, second, float((both - alone[0] - alone[1] + base).mean())))
            progress(f"{first[0]}, {second[0]}")
    return found


def logged(objective: Objective, log: Log, at4: Sequence[str]) -> np.ndarray:
    return np.array(log.get(f"loss 4: {', '.join(at4)}", lambda: plan_losses(objective, at4).tolist()))
