"""What is compared: a network, its copy, and two of it with a slower schedule, one for a layer, one for the whole."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from hawqtvm.console import note
from hawqtvm.deploy import deploy
from hawqtvm.errors import CheckFailed
from hawqtvm.files import write_atomic
from hawqtvm.quantize import quantize_source
from hawqtvm.report import measure_pairs
from hawqtvm.report.compare import Factors, judged
from hawqtvm.source import Source
from hawqtvm.tune import tune
from schedules import tuning_log
from schedules.tuned import family

BATCH, THREADS, CONFIGS = 8, 1, 24
SLOWER = {"layer": (1.12, 1.25), "network": (1.05, 1.08)}  # times, in place
TRIED = 12
ROUNDS = 10
SETTINGS = {"threads": THREADS, "verify": True, "measure": False}


@dataclass(frozen=True)
class Slower:
    """A config that tuning found slower than the best: by how much its layer, and the network, are expected to be."""

    record: tuning_log.Record
    layers: list[str]
    layer: float
    network: float


def build(folder: Path, model: str) -> dict:
    """Builds base, same, layer and network in ``folder``, or finds them there; ``subjects.json`` says what they are.

    CheckFailed when no legal config is as much slower as wanted.
    """
    done = folder / "subjects.json"
    if done.exists():
        return json.loads(done.read_text())
    quantized, _ = quantize_source(Source(model=model), folder / "checkpoint")
    rows = tune(quantized, 8, BATCH, threads=THREADS, trials=CONFIGS, out=folder / "logs")
    records = [record for path in (folder / "logs").glob("*/*.jsonl") for record in tuning_log.read(path)]
    records = [record for record in records if record.error is None]
    deploy(quantized, 8, BATCH, folder / "base", tuning_logs=folder / "logs", **SETTINGS)
    shutil.copytree(folder / "base", folder / "same", dirs_exist_ok=True)
    options = candidates(rows, records)
    subjects = {
        "model": model,
        "layer": _slow(folder, quantized, records, "layer", [o for o in options if len(o.layers) == 1]),
        "network": _slow(folder, quantized, records, "network", options),
    }
    write_atomic(done, json.dumps(subjects, indent=1) + "\n")
    return subjects


def candidates(rows, records: list[tuning_log.Record]) -> list[Slower]:
    """Every config that was measured slower than its workload's best."""
    total = sum(row.us * len(row.layers) for row in rows)
    layers = {family(row.workload): row for row in rows}
    found = []
    for record in records:
        row = layers[family(record.workload)]
        if record.median > row.us:
            whole = 1 + (record.median - row.us) * len(row.layers) / total
            found.append(Slower(record, row.layers, record.median / row.us, whole))
    return found


def _slow(folder: Path, quantized, records, kind: str, options: list[Slower]) -> dict:
    """Builds a candidate that is slow enough in place, but not far more, and says what it is.

    Kernels alone are slowed by other amounts than in place: each try aims by what the one before made of its promise.
    """
    least, most = SLOWER[kind]
    wanted = (least + most) / 2 - 1
    aim, untried, tried = wanted, list(options), []
    for _ in range(min(TRIED, len(options))):
        option = min(untried, key=lambda o: abs(getattr(o, kind) - 1 - aim))
        untried.remove(option)
        ratio = _in_place(folder, quantized, records, kind, option)
        note(f"{kind}: {option.layers} with {option.record.schedule} {option.record.config}: {ratio:.3f} times")
        if least <= ratio <= most:
            return _subject(kind, option, ratio)
        tried.append((ratio, option))
        aim = (getattr(option, kind) - 1) * wanted / max(ratio - 1, wanted / 3)
    slow = [(ratio, option) for ratio, option in tried if ratio > most]
    if not slow:
        raise CheckFailed(f"no slower config was found that makes the {kind} {least} times slower")
    _, option = min(slow, key=lambda pair: pair[0])
    return _subject(kind, option, _in_place(folder, quantized, records, kind, option))


def _subject(kind: str, option: Slower, ratio: float) -> dict:
    return {
        "row": option.layers[0] if kind == "layer" else None,
        "layers": option.layers,
        "schedule": option.record.schedule,
        "config": option.record.config,
        "ratio": ratio,
    }


def _in_place(folder: Path, quantized, records, kind: str, option: Slower) -> float:
    """Builds the network with the option's config in ``folder``/kind and says how much slower it, or the layer, is."""
    logs = folder / f"logs-{kind}"
    same = family(option.record.workload)
    kept = [record for record in records if family(record.workload) != same or record is option.record]
    path = tuning_log.log_path(logs, option.record.device, option.record.target, option.record.threads)
    write_atomic(path, "".join(map(tuning_log.line, kept)))
    deploy(quantized, 8, BATCH, folder / kind, tuning_logs=logs, **SETTINGS)
    rows = judged(*measure_pairs([folder / "base"], [folder / kind], rounds=ROUNDS), Factors())
    layer = option.layers[0] if kind == "layer" else None
    return next(row.shift.ratio for row in rows if row.layer == layer)
