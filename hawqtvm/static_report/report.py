"""Networks -> rows of their kernels and sums, as plain dicts for JSON."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from hawqtvm.qnn.model import Arithmetic, QuantizedModel
from hawqtvm.static_report.bounds import DATA_SHEETS, tops
from hawqtvm.static_report.kernel import compiled, lowered, row
from hawqtvm.static_report.published import published, published_us
from hawqtvm.tune.layers import distinct_workloads
from relay_passes.context import Context
from schedules.cuda import nvcc
from schedules.target import CudaTarget

VERSION = 1
BITS = (8, 4)


def report(
    models: Iterable[QuantizedModel],
    target: CudaTarget,
    batch: int = 8,
    residual: str = "int16",
    step: Callable[[str], None] = lambda name: None,
) -> dict:
    """Each model at 8 and at 4 bits: ``{"target", "batch", "residual", "peak", "published", "networks": [...]}``.

    A network has its ``kernels``, one row for all layers whose kernels differ in nothing but constants, and ``sums``;
    times are microseconds, computed.  ``step(layer)`` is called as each kernel is compiled.  Raises BadInput: no nvcc,
    or one that refuses; a kernel of several launches.
    """
    nvcc.find_nvcc()  # before the long work
    networks = [network(model, bits, batch, target, residual, step) for model in models for bits in BITS]
    return {
        "version": VERSION,
        "target": target.name,
        "batch": batch,
        "residual": residual,
        "peak": {**{f"int{bits}_tops": tops(target, bits) for bits in BITS}, "dram_gb_s": DATA_SHEETS[target.arch][1]},
        "published": published()["source"],
        "networks": networks,
    }


def network(model: QuantizedModel, bits: int, batch: int, target: CudaTarget, residual: str, step) -> dict:
    """One uniform network; the layers that must stay at 8 bits do."""
    found = distinct_workloads(Context(Arithmetic(model, model.bits(bits), residual), batch, target, 1))

    def made(pair) -> dict:
        workload, layers = pair
        kernel = kernels[workload]
        about = row(kernel, compiled(kernel.text, target), target)
        us = published_us(model.name, workload, target)
        peak = us and kernel.work.operations / us / 1e6 / tops(target, workload.weight_bits)
        step(layers[0])
        return {"layers": layers, **about, "published_us": us, "published_of_peak": peak}

    kernels = {workload: lowered(workload, target) for workload in found}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        rows = list(pool.map(made, found.items()))
    return {"model": model.name, "bits": bits, "kernels": rows, "sums": sums(rows)}


def sums(rows: list[dict]) -> dict:
    """Over layers, microseconds: the bounds, by what binds; and of the layers that have a published time, both."""

    def total(key: str, of: list[dict]) -> float:
        return sum(row[key] * len(row["layers"]) for row in of)

    known = [row for row in rows if row["published_us"] is not None]
    binding = dict.fromkeys(row["binds"] for row in rows)
    return {
        "layers": sum(len(row["layers"]) for row in rows),
        "kernels": len(rows),
        "bound_us": total("bound_us", rows),
        "binding_us": {name: total("bound_us", [row for row in rows if row["binds"] == name]) for name in binding},
        "published_layers": sum(len(row["layers"]) for row in known),
        "published_us": total("published_us", known),
        "bound_of_published_us": total("bound_us", known),
    }
