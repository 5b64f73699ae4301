"""Fisher information at the layers' outputs: the loss increase by the error that quantization makes there.

To second order a change ``d`` of a layer's output raises the loss by ``d^T H d / 2``, and the Fisher information
``E[g g^T]`` of the loss' gradient ``g`` there stands for ``H``: ``E[(g . d)^2] / 2``.  ``d`` is what quantized weights
on quantized input make of one image, so both errors count, with all their correlations.  With labels the loss has a
slope too, which no training quite removes: ``E[g . d]`` is added.
"""

from dataclasses import replace

import numpy as np
import torch

from hawqtvm.console import Progress
from hawqtvm.qnn.graph import LAYERS
from hawqtvm.qnn.model import Arithmetic
from hawqtvm.qnn.reference import clip_real, fake_quantize, live_run, real_step
from hawqtvm.sensitivity.found import Found
from hawqtvm.sensitivity.groups import Group, free_groups, groups
from hawqtvm.sensitivity.log import Log
from hawqtvm.sensitivity.objective import Objective


def measure(objective: Objective, log: Log) -> Found:
    """Half the mean square of each group's ``g . d``, with labels plus its mean; standard error: of the images."""
    found = Found()
    for (group, bits), samples in scores(objective, log).items():
        found.add(group, bits, objective.labels * samples + samples**2 / 2)
    return found


def scores(objective: Objective, log: Log) -> dict[tuple[Group, int], np.ndarray]:
    """``g . d`` of every image ``(N,)`` by group and bits: 8 for each group, 4 for those that a plan may set."""
    graph = objective.model.graph
    free = free_groups(graph)
    columns = [(group, bits) for group in groups(graph) for bits in ((4, 8) if group in free else (8,))]
    parts = []
    with Progress("batches", len(objective.batches)) as progress:
        for index in range(len(objective.batches)):
            parts.append(log.get(f"fisher batch {index}", lambda i=index: batch_scores(objective, i, columns).tolist()))
            progress()
    return dict(zip(columns, np.concatenate(parts, 1), strict=True))


def batch_scores(objective: Objective, index: int, columns: list[tuple[Group, int]]) -> np.ndarray:
    """``(columns, N)`` float64 of one batch: one run forward and backward, and each layer once at each of its bits."""
    model, batch, read, made = objective.model, objective.batches[index], {}, {}
    for step, env in live_run(model.graph, torch.from_numpy(objective.images[batch])):
        inputs = [env[i] for i in step.inputs]
        if step.op in LAYERS:
            layer = model.layers[step.name]
            value = real_step(replace(step, relu=False), inputs, layer.weight, layer.bias)
            read[step.name], made[step.name] = inputs[0].detach(), value.requires_grad_()
            value = clip_real(step, value)
        else:
            value = real_step(step, inputs, None, None)
        env[step.name] = value
    score = objective.score(value, batch, np.random.default_rng((objective.seed, index)))
    gradients = dict(zip(made, torch.autograd.grad(score, list(made.values()), materialize_grads=True), strict=True))
    rows, arithmetic = np.zeros((len(columns), len(batch))), {b: Arithmetic(model, model.bits(b)) for b in (4, 8)}
    for row, (group, bits) in zip(rows, columns, strict=True):
        for name in group:
            error = output_error(arithmetic[bits], name, read[name], made[name].detach())
            row += (gradients[name] * error).flatten(1).sum(1, dtype=torch.float64).numpy()
    return rows


def output_error(arithmetic: Arithmetic, name: str, read: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """``d``: what quantizing its weight and its input changes at a layer's output ``made``, before any ReLU."""
    step, layer = arithmetic.graph.step(name), arithmetic.model.layers[name]
    q = arithmetic.tensors[step.inputs[0]]
    weight = layer.dequantized(arithmetic.layer_bits[name])
    return real_step(replace(step, relu=False), [fake_quantize(read, q, *q.limits)], weight, layer.bias) - made
