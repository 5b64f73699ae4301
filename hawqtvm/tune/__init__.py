"""Stage: measures schedules for a network's layers on a device; builds then take the fastest."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hawqtvm.console import Progress, note
from hawqtvm.errors import BadInput
from hawqtvm.plan import Plan, uniform
from hawqtvm.setting import TUNING_LOGS, check_processor, machine, packs

if TYPE_CHECKING:
    from hawqtvm.qnn.model import QuantizedModel
    from hawqtvm.tune.devices import Local, Tracker
    from hawqtvm.tune.trials import Row
    from schedules.target import CpuTarget

TRIALS = 24


def tune(
    quantized: "QuantizedModel",
    bits: dict[str, int] | int | Plan | None = None,
    batch: int = 1,
    *,
    target: str = "native",
    threads: int | None = None,
    residual: str = "int16",
    activations: str = "bytes",
    trials: int = TRIALS,
    tracker: str | None = None,
    key: str | None = None,
    out: str | os.PathLike = TUNING_LOGS,
) -> "list[Row]":
    """Measures at most ``trials`` configs for each distinct workload of a network, and logs them.

    ``bits``: as of :func:`hawqtvm.deploy.deploy`; None for the network at 8 bits and at 4.  ``tracker``, ``key``: a TVM
    RPC tracker's "host:port" and the key of its devices to measure on, instead of on this machine; "native" is then
    what they are, and ``threads`` by default as many as they have.  The other arguments are those of deploy.  What the
    log under ``out`` already has is not measured again, so an interrupted run continues.

    Raises BadInput (a plan that does not fit, a target the device cannot run, more threads than CPUs, a log that cannot
    be written, no such tracker or device) and CheckFailed (no device stayed).
    """
    from hawqtvm.qnn.model import Arithmetic
    from hawqtvm.tune.bench import Bench, side_by_side
    from hawqtvm.tune.layers import distinct_workloads
    from hawqtvm.tune.trials import Trials
    from relay_passes.context import Context
    from schedules.tuning_key import tuning_key

    devices, level, path = tuning_place(batch, threads, target, trials, tracker, key, out)
    words = packs(activations, level)
    networks = {}
    for plan in networks_of(bits):
        arithmetic = Arithmetic(quantized, quantized.bits(plan.bits), residual)
        networks[plan.name] = distinct_workloads(Context(arithmetic, batch, level, devices.threads, words))
    log = Trials(path, level, devices.threads, devices.machine.device)
    workloads = {tuning_key(workload): workload for found in networks.values() for workload in found}
    with Bench(level, devices) as bench, Progress("workloads", len(workloads)) as progress:

        def search(workload) -> None:
            log.search(workload, trials, bench.measure)
            progress(next(names[0] for found in networks.values() if (names := found.get(workload))))

        side_by_side(search, workloads.values(), devices.count)
    note(f"tuning log: {path}")
    return [log.row(name, *pair) for name, found in networks.items() for pair in found.items()]


def networks_of(bits: dict[str, int] | int | Plan | None) -> list[Plan]:
    """The plans to tune for: both uniform ones where there is none."""
    if bits is None:
        return [uniform(8), uniform(4)]
    return [bits if isinstance(bits, Plan) else Plan(bits, "plan") if isinstance(bits, dict) else uniform(bits)]


def tuning_place(
    batch: int,
    threads: int | None,
    target: str,
    trials: int,
    tracker: str | None,
    key: str | None,
    out: str | os.PathLike,
) -> "tuple[Local | Tracker, CpuTarget, Path]":
    """The devices, what to compile for them, and their log; raises what :func:`tune` says, before the long work."""
    from hawqtvm.files import check_appendable
    from hawqtvm.runtime import threads as cpu_threads
    from hawqtvm.tune.devices import Local, Tracker
    from schedules.target import find_target
    from schedules.tuning_log import log_path

    if type(trials) is not int or trials < 1:
        raise BadInput(f"trials {trials!r}: give a whole number, 1 or more")
    if (tracker is None) != (key is None):
        raise BadInput("--tracker and --key go together: host:port of a TVM RPC tracker and its devices' key")
    check_processor(target, "tune")
    threads_here, _ = machine(batch, threads, target)
    if tracker is None:
        devices = Local(cpu_threads.choose(threads_here, threads_here))
    else:
        devices = Tracker(tracker, key, threads)
    level = find_target(target, devices.machine.features)
    if not devices.machine.features.issuperset(level.features):
        raise BadInput(f"{devices.name} cannot run {level.name}: tune on one that can, or for another target")
    path = log_path(Path(out), devices.machine.device, level.name, devices.threads)
    check_appendable(path)
    return devices, level, path
