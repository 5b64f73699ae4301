"""Stage: what each layer takes at 4 and at 8 bits where it runs, in the network -> latency.json, for allocate."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hawqtvm.console import note
from hawqtvm.errors import BadInput
from hawqtvm.runtime.artifact import MANIFEST
from hawqtvm.setting import ACTIVATIONS, check_processor, machine, packs

if TYPE_CHECKING:
    from hawqtvm.latency.attribute import Costs
    from hawqtvm.latency.plans import Bits
    from hawqtvm.qnn.model import QuantizedModel
    from relay_passes.context import Context

VERSION = 1
ROUNDS = 20
SEED = 0


@dataclass(frozen=True)
class Check:
    """A plan's predicted and measured microseconds a call."""

    bits: "Bits"
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class Profile:
    """``costs``: of the layers.  ``checks``: plans measured beside them.  ``setting``: what it all holds for."""

    costs: "Costs"
    checks: "list[Check]"
    setting: dict

    def summary(self) -> dict:
        """Median and worst relative error of the checked plans, and the rank correlation (Spearman) of their times."""
        import numpy as np

        errors = [abs(check.error) for check in self.checks]
        pairs = np.array([(check.predicted, check.measured) for check in self.checks])
        ranks = pairs.argsort(axis=0).argsort(axis=0)
        return {
            "plans": len(errors),
            "median_error": float(np.median(errors)),
            "worst_error": max(errors),
            "rank_correlation": float(np.corrcoef(ranks.T)[0, 1]),
        }

    def to_json(self) -> dict:
        costs = self.costs
        return {
            "version": VERSION,
            **self.setting,
            "layers": {name: {str(b): us for b, us in by_bits.items()} for name, by_bits in costs.layers.items()},
            "other_us": costs.other,
            "edges": [
                {"from": edge.source, "to": edge.target, "us": {"4-8": edge.down, "8-4": edge.up}}
                for edge in costs.edges
            ],
            "validation": self.summary() | {"checks": [asdict(check) for check in self.checks]},
        }


def latency(
    quantized: "QuantizedModel",
    batch: int = 1,
    *,
    target: str = "native",
    threads: int | None = None,
    residual: str = "int16",
    activations: str = ACTIVATIONS[0],
    tuning_logs: str | os.PathLike | None = None,
    plans: int = 10,
    rounds: int = ROUNDS,
    out: str | os.PathLike | None = None,
    checkpoint_sha256: str | None = None,
) -> Profile:
    """Builds four plans that show every layer at 4 and 8 bits before readers of either, and times them by the kernel.

    ``plans``: random ones, built and timed beside them to tell how well the sum predicts; the uniform plans are
    checked too.  ``rounds``: turns of each program.  ``out``: the file to write.  The other arguments are those of
    :func:`hawqtvm.deploy.deploy`.  Raises BadInput (a target this machine cannot run, more threads than CPUs, numbers
    that make no sense, a place that cannot be written).
    """
    from hawqtvm.checkpoint import weights_sha256
    from hawqtvm.compile import compile_library
    from hawqtvm.deploy import logs_folder
    from hawqtvm.files import check_appendable, write_atomic
    from hawqtvm.latency.attribute import attribute
    from hawqtvm.latency.plans import profile_plans, random_plans
    from hawqtvm.latency.timing import measure
    from hawqtvm.qnn.model import Arithmetic
    from hawqtvm.runtime import load
    from hawqtvm.runtime import threads as cpu_threads
    from hawqtvm.runtime.cpu import cpu_features
    from relay_passes.context import Context
    from schedules.tuned import SHIPPED, load_tuned
    from schedules.tuning_log import this_device

    check_counts(plans, rounds)
    check_processor(target, "latency")
    threads, level = machine(batch, threads, target)
    if not cpu_features().issuperset(level.features):
        raise BadInput(f"this machine cannot run {level.name}: measure on one that can, or for another target")
    cpu_threads.choose(threads, threads)
    if out is not None:
        check_appendable(out)
    tuned = load_tuned(level, threads, this_device(), (logs_folder(tuning_logs), SHIPPED))
    graph, words = quantized.graph, packs(activations, level)
    profiled = profile_plans(graph)
    chosen = profiled + random_plans(graph, plans, SEED)
    with tempfile.TemporaryDirectory(prefix="hawqtvm-") as folder:
        models = []
        for number, bits in enumerate(chosen, 1):
            note(f"program {number} of {len(chosen)}")
            context = Context(Arithmetic(quantized, bits, residual), batch, level, threads, words, tuned)
            models.append(load(_built(context, Path(folder) / str(number), compile_library)))
        times = measure(models, rounds, references=len(profiled))
    costs = attribute(graph, profiled, [times.layers(index) for index in range(len(profiled))])
    checked = [index for index in range(len(chosen)) if index < 2 or index >= len(profiled)]
    checks = [Check(chosen[index], costs.predict(chosen[index]), times.call(index)) for index in checked]
    setting = described(
        quantized.name,
        checkpoint_sha256 or weights_sha256(quantized),
        target=level.name,
        threads=threads,
        batch=batch,
        residual=residual,
        activations=activations,
        tuning_logs=tuning_logs,
    )
    profile = Profile(costs, checks, setting)
    if out is not None:
        write_atomic(out, json.dumps(profile.to_json(), indent=1) + "\n")
    return profile


def check_counts(plans: int, rounds: int) -> None:
    """BadInput for numbers that make no sense."""
    for name, value, least in (("plans", plans, 0), ("rounds", rounds, 2)):
        if type(value) is not int or value < least:
            raise BadInput(f"{name} {value!r}: give a whole number, {least} or more")


def _built(context: "Context", directory: Path, compile_library) -> Path:
    """An artifact that only runs."""
    directory.mkdir()
    (directory / MANIFEST).write_text(json.dumps(compile_library(context, directory).manifest))
    return directory


def described(
    model: str, checkpoint: str, *, target: str, threads: int, tuning_logs: str | os.PathLike | None, **setting
) -> dict:
    """What a profile measured here holds for; ``tuning_log`` is of this device, the user's before hawqtvm's own."""
    from hawqtvm.deploy import logs_folder
    from hawqtvm.files import sha256_file
    from schedules.tuned import SHIPPED
    from schedules.tuning_log import log_path, this_device

    device = this_device()
    paths = (log_path(folder, device, target, threads) for folder in (logs_folder(tuning_logs), SHIPPED))
    return {
        "model": model,
        "checkpoint": checkpoint,
        "device": device.folder,
        "driver": None,
        "target": target,
        "threads": threads,
        **setting,
        "tuning_log": next((sha256_file(path) for path in paths if path.is_file()), None),
    }
