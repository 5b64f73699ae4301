"""Stage: measures schedules for a network's layers on this machine; builds then take the fastest."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hawqtvm.console import Progress, note
from hawqtvm.errors import BadInput
from hawqtvm.plan import Plan
from hawqtvm.setting import TUNING_LOGS, machine, packs

if TYPE_CHECKING:
    from hawqtvm.qnn.model import QuantizedModel
    from hawqtvm.tune.trials import Row
    from schedules.target import CpuTarget

TRIALS = 8


def tune(
    quantized: "QuantizedModel",
    bits: dict[str, int] | int | Plan = 8,
    batch: int = 1,
    *,
    target: str = "native",
    threads: int | None = None,
    residual: str = "int16",
    activations: str = "bytes",
    trials: int = TRIALS,
    out: str | os.PathLike = TUNING_LOGS,
) -> "list[Row]":
    """Measures at most ``trials`` configs of every schedule for each distinct workload of a network, and logs them.

    The other arguments are those of :func:`hawqtvm.deploy.deploy`.  What the log under ``out`` already has is not
    measured again, so an interrupted run continues.  Raises BadInput (a plan that does not fit, a target this machine
    cannot run, more threads than CPUs, a log that cannot be written).
    """
    from hawqtvm.files import check_appendable
    from hawqtvm.qnn.model import Arithmetic
    from hawqtvm.tune.layers import distinct_workloads
    from hawqtvm.tune.trials import Trials
    from relay_passes.context import Context
    from schedules.tuning_log import log_path, this_device

    threads, level = tuning_machine(batch, threads, target, trials)
    words = packs(activations)
    path = log_path(Path(out), this_device(), level.name, threads)
    check_appendable(path)
    layer_bits = quantized.bits(bits.bits if isinstance(bits, Plan) else bits)
    workloads = distinct_workloads(Context(Arithmetic(quantized, layer_bits, residual), batch, level, threads, words))
    log, rows = Trials(path, level, threads), []
    with Progress("workloads", len(workloads)) as progress:
        for workload, layers in workloads.items():
            log.measure(workload, trials)
            rows.append(log.row(workload, layers))
            progress(layers[0])
    note(f"tuning log: {path}")
    return rows


def tuning_machine(batch: int, threads: int | None, target: str, trials: int) -> "tuple[int, CpuTarget]":
    """As :func:`hawqtvm.setting.machine`, but able to run here; BadInput also for a wrong number of trials."""
    from hawqtvm.runtime import threads as cpu_threads
    from hawqtvm.runtime.cpu import cpu_features

    if type(trials) is not int or trials < 1:
        raise BadInput(f"trials {trials!r}: give a whole number, 1 or more")
    threads, level = machine(batch, threads, target)
    if not cpu_features().issuperset(level.features):
        raise BadInput(f"this machine cannot run {level.name}: tune on one that can, or for another target")
    return cpu_threads.choose(threads, threads), level
