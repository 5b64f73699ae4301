"""What is compared: a network, its copy, and two of it with slower schedules, one in a layer, one throughout."""

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
SLOWER = {"layer": (1.12, 1.25), "network": (1.045, 1.06)}  # times, in place
TRIED = 12
PACES = [1 + step / 50 for step in range(1, 51)]  # times a layer's best that a network's layers are slowed to
ROUNDS = 10
SETTINGS = {"threads": THREADS, "verify": True, "measure": False}


@dataclass(frozen=True)
class Slower:
    """Configs that tuning found slower than the best, one a workload; ``expected``: their time over the best's."""

    records: list[tuning_log.Record]
    layers: list[str]
    expected: float


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
    subjects = {
        "model": model,
        "layer": _slow(folder, quantized, records, "layer", slower_layers(rows, records)),
        "network": _slow(folder, quantized, records, "network", slower_networks(rows, records)),
    }
    write_atomic(done, json.dumps(subjects, indent=1) + "\n")
    return subjects


def slower_layers(rows, records: list[tuning_log.Record]) -> list[Slower]:
    """Every config that was measured slower than its workload's best, where one layer has the workload."""
    alone = {family(row.workload): row for row in rows if len(row.layers) == 1}
    pairs = [(record, alone.get(family(record.workload))) for record in records]
    return [Slower([r], row.layers, r.median / row.us) for r, row in pairs if row and r.median > row.us]


def slower_networks(rows, records: list[tuning_log.Record]) -> list[Slower]:
    """For each pace, every workload with the config nearest to it."""
    total, found = sum(row.us * len(row.layers) for row in rows), []
    for pace in PACES:
        chosen = [_nearest(records, row, pace) for row in rows]
        time = sum(record.median * len(row.layers) for record, row in zip(chosen, rows, strict=True))
        found.append(Slower(chosen, [layer for row in rows for layer in row.layers], time / total))
    return found


def _nearest(records: list[tuning_log.Record], row, pace: float) -> tuning_log.Record:
    mine = [record for record in records if family(record.workload) == family(row.workload)]
    return min(mine, key=lambda record: abs(record.median / row.us - pace))


def _slow(folder: Path, quantized, records, kind: str, options: list[Slower]) -> dict:
    """Builds a candidate that is slow enough in place, but not far more, and says what it is.

    Kernels alone are slowed by other amounts than in place: each try aims by what the one before made of its promise.
    """
    least, most = SLOWER[kind]
    wanted = (least + most) / 2 - 1
    aim, untried, tried = wanted, list(options), []
    for _ in range(min(TRIED, len(options))):
        option = min(untried, key=lambda o: abs(o.expected - 1 - aim))
        untried.remove(option)
        ratio = _in_place(folder, quantized, records, kind, option)
        note(f"{kind}: {option.expected:.3f} times was expected, {ratio:.3f} measured: {_configs(option)}")
        if least <= ratio <= most:
            return _subject(kind, option, ratio)
        tried.append((ratio, option))
        aim = (option.expected - 1) * wanted / max(ratio - 1, wanted / 3)
    slow = [(ratio, option) for ratio, option in tried if ratio > most]
    if not slow:
        raise CheckFailed(f"no slower config was found that makes the {kind} {least} times slower")
    _, option = min(slow, key=lambda pair: pair[0])
    return _subject(kind, option, _in_place(folder, quantized, records, kind, option))


def _subject(kind: str, option: Slower, ratio: float) -> dict:
    return {
        "row": option.layers[0] if kind == "layer" else None,
        "layers": option.layers,
        "configs": _configs(option),
        "ratio": ratio,
    }


def _configs(option: Slower) -> list[str]:
    return [f"{record.schedule} {record.config}" for record in option.records]


def _in_place(folder: Path, quantized, records, kind: str, option: Slower) -> float:
    """Builds the network with the option's configs in ``folder``/kind and says how much slower it, or the layer, is."""
    logs = folder / f"logs-{kind}"
    slowed = {family(record.workload) for record in option.records}
    kept = [record for record in records if family(record.workload) not in slowed] + option.records
    path = tuning_log.log_path(logs, kept[0].device, kept[0].target, kept[0].threads)
    write_atomic(path, "".join(map(tuning_log.line, kept)))
    deploy(quantized, 8, BATCH, folder / kind, tuning_logs=logs, **SETTINGS)
    rows = judged(*measure_pairs([folder / "base"], [folder / kind], rounds=ROUNDS), Factors())
    layer = option.layers[0] if kind == "layer" else None
    return next(row.shift.ratio for row in rows if row.layer == layer)
