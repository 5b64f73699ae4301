"""Trace of each layer's Hessian (HAWQ-V2, HAWQ-V3): the loss increase by the error of its weights alone.

To second order a change ``d`` of a layer's ``n`` weights raises the loss by ``d^T H d / 2``, in the mean over
directions by ``tr(H) |d|^2 / 2n``.  Hutchinson: ``tr(H) = E[v^T H v]`` over random signs ``v``.
"""

import numpy as np
import torch

from hawqtvm.console import Progress, note
from hawqtvm.qnn.reference import live_run, real_step
from hawqtvm.sensitivity.found import Found, mean_and_error
from hawqtvm.sensitivity.groups import free_groups
from hawqtvm.sensitivity.log import Log
from hawqtvm.sensitivity.objective import LARGEST_BATCH, Objective, rademacher

LEAST_PROBES = 10
PROBE_VALUES = 2**18  # of input a probe: one image of 224x224, as other signs are worth more than other images


def measure(objective: Objective, log: Log, tolerance: float, most: int) -> Found:
    """``tr(H) |Q(W) - W|^2 / 2n`` of each layer of the float model; ``notes`` hold its trace, error and probes."""
    model = objective.model
    free = {name for group in free_groups(model.graph) for name in group}
    found = Found(notes={"tolerance": tolerance, "traces": {}})
    for name, samples in traces(objective, log, tolerance, most).items():
        layer, (trace, error) = model.layers[name], mean_and_error(samples)
        found.notes["traces"][name] = {"trace": trace, "stderr": error, "probes": len(samples)}
        for bits in (4, 8) if name in free else (8,):
            squared = np.square(layer.dequantized(bits) - layer.weight, dtype="float64").mean()
            found.add((name,), bits, squared / 2 * samples)
    return found


def traces(objective: Objective, log: Log, tolerance: float, most: int) -> dict[str, np.ndarray]:
    """Estimates ``v^T H v`` of each layer's trace, float64 ``(probes,)``.

    A layer takes part until its standard error is at most ``tolerance`` times its trace, or for ``most`` probes.  Each
    probe takes the next images of the set, so that the standard error counts their differences too.
    """
    samples: dict[str, list[float]] = {name: [] for name in objective.model.layers}
    with Progress("probes", most) as progress:
        for index in range(most):
            going = [
                n for n, found in samples.items() if len(found) < LEAST_PROBES or relative_error(found) > tolerance
            ]
            if not going:
                break
            item = f"hessian probe {index}: {', '.join(going)}"
            values = log.get(item, lambda i=index, names=going: probe(objective, i, names))
            for name, value in zip(going, values, strict=True):
                samples[name].append(value)
            progress(f"{len(going)} layers left")
    worst = max(samples, key=lambda name: relative_error(samples[name]))
    if relative_error(samples[worst]) > tolerance:
        note(
            f"warning: the trace of {worst} has a standard error of {relative_error(samples[worst]):.0%} after "
            f"{len(samples[worst])} probes; --probes allows more"
        )
    return {name: np.array(found) for name, found in samples.items()}


def next_images(images: np.ndarray, probe: int) -> np.ndarray:
    """Indices of a probe's images ``(N, C, H, W)``: the next of the set, which starts again at its end."""
    count = min(len(images), LARGEST_BATCH, max(1, PROBE_VALUES // images[0].size))
    return np.arange(probe * count, (probe + 1) * count) % len(images)


def relative_error(samples: list[float]) -> float:
    mean, error = mean_and_error(samples)
    return error / abs(mean) if error else 0.0


def probe(objective: Objective, index: int, names: list[str]) -> list[float]:
    """``v^T H v`` of each named layer on a few images, by one Hessian-vector product a layer.

    One product with all layers' signs would hold the same in the mean, but with the noise of ``v_i^T H_ij v_j`` between
    layers, many times a layer's own.
    """
    model, batch = objective.model, next_images(objective.images, index)
    weights = {name: torch.from_numpy(layer.weight.copy()).requires_grad_() for name, layer in model.layers.items()}
    for step, env in live_run(model.graph, torch.from_numpy(objective.images[batch])):
        layer, inputs = model.layers.get(step.name), [env[i] for i in step.inputs]
        env[step.name] = real_step(step, inputs, weights.get(step.name), layer and layer.bias)
    loss = objective.losses(env[model.graph.output.name], batch).mean()
    asked = [weights[name] for name in names]
    gradients = torch.autograd.grad(loss, asked, create_graph=True, materialize_grads=True)
    values = []
    for name, weight, gradient in zip(names, asked, gradients, strict=True):
        v = rademacher(np.random.default_rng((objective.seed, index, list(weights).index(name))), weight.shape)
        (product,) = torch.autograd.grad((gradient * v).sum(), weight, retain_graph=True, materialize_grads=True)
        values.append(float((v * product).sum(dtype=torch.float64)))
    return values
