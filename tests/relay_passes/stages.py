"""Small quantized networks on their way through the passes, and the way to run a module of any stage."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import tvm
from tvm import relax

from hawqtvm.qnn.model import Arithmetic, QuantizedModel
from relay_passes.context import Context
from relay_passes.emit import emit
from relay_passes.executable import build
from relay_passes.lift import EXPAND, lift
from relay_passes.pipeline import REWRITES
from relay_passes.schedule import Kernel, schedule
from schedules.target import CpuTarget, find_target
from tests.nets import quantized_net

BATCH = 2
# any x86-64 runs it; without optimization a network compiles in a sixth of the time
UNOPTIMIZED = {"kind": "llvm", "mcpu": "x86-64", "opt-level": 0}


@cache
def model_of(net: str) -> QuantizedModel:
    return quantized_net(net)


def mixed_plan(model: QuantizedModel, seed: int) -> dict[str, int]:
    """4 or 8 for each layer at random, tied layers together, the fixed ones at 8."""
    rng = np.random.default_rng(seed)
    graph, plan = model.graph, {}
    for layer in graph.layers:
        group = graph.readers(graph.tensors[layer.inputs[0]].group)
        if layer.name not in plan and layer.name not in graph.fixed():
            plan |= dict.fromkeys(group, int(rng.choice([4, 8])))
    return model.bits(plan)


def context_of(
    model: QuantizedModel,
    bits: dict[str, int] | int = 8,
    residual: str = "int16",
    target: str | CpuTarget = "x86-64",
    batch: int = BATCH,
    threads: int = 1,
) -> Context:
    """``bits``: a plan, or 4 or 8 for all."""
    target = find_target(target) if isinstance(target, str) else target
    return Context(Arithmetic(model, model.bits(bits), residual), batch, target, threads)


def net_context(net: str, bits: dict[str, int] | int = 8, residual: str = "int16", **options) -> Context:
    return context_of(model_of(net), bits, residual, **options)


def eight_bits(context: Context) -> Arithmetic:
    """What the emission stands for, before the plan's bits."""
    model = context.arithmetic.model
    return Arithmetic(model, model.bits(8), context.arithmetic.residual)


def emitted(context: Context) -> tvm.IRModule:
    return emit(eight_bits(context), context.batch)


def stages(context: Context) -> Iterator[tuple[str, tvm.IRModule]]:
    """Every stage's name and module, from the emission to the scheduled kernels."""
    mod = emitted(context)
    yield "emit", mod
    for rewrite in REWRITES:
        mod = rewrite(mod, context)
        yield rewrite.__name__, mod
    mod, _ = scheduled(mod, context)
    yield "schedule", mod
    yield "lift", lift(mod)


def after(name: str, context: Context) -> tvm.IRModule:
    """The module as the pass of this name leaves it."""
    return next(mod for stage, mod in stages(context) if stage == name)


def scheduled(mod: tvm.IRModule, context: Context) -> tuple[tvm.IRModule, list[Kernel]]:
    return schedule(mod, context, lambda layer: None)


def run(mod: tvm.IRModule, codes: np.ndarray, target: dict | tvm.target.Target = UNOPTIMIZED) -> np.ndarray:
    """main's result on uint8 ``codes``, as :func:`hawqtvm.qnn.reference.logits` shapes it."""
    machine = relax.VirtualMachine(build(mod, tvm.target.Target(target)), tvm.cpu())
    weights = [machine[EXPAND]()] if EXPAND in {var.name_hint for var in mod.get_global_vars()} else []
    out = machine["main"](tvm.runtime.tensor(codes), *weights).numpy()
    return out.reshape(out.shape[:2]) if out.shape[2:] == (1, 1) else out


def input_codes(context: Context, seed: int = 0) -> np.ndarray:
    """A batch: one of calibration's images, the others uniform noise over all codes, one pixel of each extreme."""
    shape = (context.batch, *context.arithmetic.graph.input_dims)
    codes = np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")
    codes[0] = context.arithmetic.model.samples[0]
    codes[-1].flat[:2] = 0, 255
    return codes
