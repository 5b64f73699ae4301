"""Whole networks on the GPU: built, verified, and timed by events beside the sum of their layers."""

import statistics
from pathlib import Path

import numpy as np

from hawqtvm.bundle.pack import UNPACKED
from hawqtvm.deploy import deploy
from hawqtvm.qnn.model import Arithmetic, QuantizedModel
from hawqtvm.quantize import quantize_named
from hawqtvm.runner.driver import Driver, Facts
from hawqtvm.runner.timing import Stopwatch
from hawqtvm.runtime import load
from hawqtvm.tune.layers import distinct_workloads
from relay_passes.context import Context
from schedules.target import CudaTarget, find_target
from schedules.tuned import load_tuned
from schedules.tuning_log import device_for

WARM_UP, RUNS = 10, 50


def network(name: str, bits: int, batch: int, facts: Facts, logs: Path) -> dict:
    """Milliseconds of a network from codes to logits: ``gpu_ms`` on the GPU, ``call_ms`` with what launches take, and
    ``layers_ms``, the sum of its layers as bundles have measured them, None where one is missing.

    Raises as :func:`hawqtvm.deploy.deploy`, which compares every tensor with PyTorch's.
    """
    target, model = find_target(facts.arch), quantize_named(name)
    out = Path("artifacts") / f"{name}-int{bits}-{facts.arch}"
    built = deploy(model, bits, batch, out, target=target.name, tuning_logs=logs if logs.is_dir() else None)
    return {
        "model": name,
        "bits": bits,
        "note": UNPACKED if bits == 4 and not target.int4 else "-",
        "verified": built.network["verified"],
        "gpu_ms": gpu_ms(built.path, facts),
        "call_ms": built.network["ms"],
        "layers_ms": layers_ms(model, bits, batch, target, logs),
    }


def gpu_ms(artifact: Path, facts: Facts) -> float:
    """Median of runs whose launches were queued before they began, from cold caches, by events."""
    model = load(artifact)
    start = model.starter(np.random.default_rng(0).integers(0, 256, model.input_shape, np.uint8))
    driver = Driver()
    driver.use(0)
    watch = Stopwatch(driver, facts.l2_bytes)
    return statistics.median([watch.time([start]) for _ in range(WARM_UP + RUNS)][WARM_UP:]) / 1e3


def layers_ms(model: QuantizedModel, bits: int, batch: int, target: CudaTarget, logs: Path) -> float | None:
    """The best measured times of all layers, added up."""
    tuned = load_tuned(target, 1, device_for(target), [logs])
    context = Context(Arithmetic(model, model.bits(bits)), batch, target, 1)
    total = 0.0
    for workload, layers in distinct_workloads(context).items():
        records = tuned.ranked(workload, target, 1)
        if not records:
            return None
        total += records[0].median * len(layers)
    return total / 1e3
