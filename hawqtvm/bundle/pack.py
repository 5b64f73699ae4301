"""Candidates of a network's workloads -> a Python zipapp that measures them; no GPU is needed here.

``bundle.json``: ``id``, the hash of what is measured; ``title``; ``arch``; ``workloads``, each with its ``name``, the
``record`` that its lines of a tuning log have in common, its ``outputs`` and its ``candidates``.
"""

import hashlib
import io
import json
import os
import zipfile
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from hawqtvm.bundle.compiled import compiled
from hawqtvm.bundle.values import Blobs, values
from hawqtvm.console import Progress, note
from hawqtvm.errors import CheckFailed
from hawqtvm.files import write_atomic
from hawqtvm.runner.bundle import BLOBS, DESCRIPTION
from hawqtvm.tune.candidates import candidate_space
from hawqtvm.tune.search import without_measurements
from schedules import tuning_log
from schedules.cuda import conv2d_direct, dense, nvcc
from schedules.dispatch import Choice, io_layouts, with_layouts
from schedules.target import CudaTarget
from schedules.tuning_key import tuning_key
from schedules.workload import Dense

START = """import sys

if sys.version_info < (3, 9):
    sys.stderr.write("error: Python 3.9 or later is needed, not %s\\n" % sys.version.split()[0])
    sys.exit(2)

from runner.command import main

sys.exit(main(sys.argv))
"""
DATE = (1980, 1, 1, 0, 0, 0)  # of the archive's files, so that the same bundle is the same file
UNPACKED = "4-bit words unpacked for 8-bit Tensor Cores"


@dataclass(frozen=True)
class Packed:
    """``path``: of the bundle, of ``bytes``; ``workloads``, ``candidates``: how many it holds; ``failed``: how many it
    does not, because they do not compile."""

    path: Path
    bytes: int
    workloads: int
    candidates: int
    failed: int


def pack(path: Path, title: str, workloads: dict, target: CudaTarget, trials: int) -> Packed:
    """Writes the bundle of at most ``trials`` candidates for each of the workloads, ``{workload: its name}``.

    BadInput where nvcc is missing, or the file cannot be written; CheckFailed where no candidate of a
    workload compiles.
    """
    nvcc.find_nvcc()  # before the long work
    blobs, entries, count = Blobs(), [], 0
    processors = len(os.sched_getaffinity(0))
    with Progress("workloads", len(workloads)) as step, ThreadPoolExecutor(processors) as pool:
        for workload, name in workloads.items():
            choices = candidates(workload, target, trials)
            entries.append(_workload(name, choices, target, blobs, pool))
            count += len(choices)
            step(name)
    about = {"title": title, "arch": target.arch, "workloads": entries}
    about["id"] = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    write_atomic(path, archive(about, blobs))
    held = sum(len(entry["candidates"]) for entry in entries)
    return Packed(path, path.stat().st_size, len(entries), held, count - held)


def candidates(workload, target: CudaTarget, trials: int) -> list[Choice]:
    """What to measure on a workload, the default first, with the workload's own numbers."""
    space = candidate_space(workload, target, 1)
    found = [space.choices[index] for index in without_measurements(space, trials)]
    return [replace(each, workload=with_layouts(workload, *io_layouts(each.workload))) for each in found]


def archive(about: dict, blobs: Blobs) -> bytes:
    """The zipapp's bytes."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as file:

        def add(name: str, data: bytes | str) -> None:
            file.writestr(zipfile.ZipInfo(name, DATE), data, zipfile.ZIP_DEFLATED)

        add("__main__.py", START)
        for source in sorted(resources.files("hawqtvm.runner").iterdir(), key=lambda entry: entry.name):
            if source.name.endswith(".py"):
                add(f"runner/{source.name}", source.read_bytes())
        add(DESCRIPTION, json.dumps(about))
        for name, data in sorted(blobs.items()):
            add(BLOBS + name, data)
    return held.getvalue()


def _workload(name: str, choices: list[Choice], target: CudaTarget, blobs: Blobs, pool: Executor) -> dict:
    """A workload's entry, without candidates that do not compile."""
    made = values(choices[0], blobs)

    def one(choice: Choice) -> dict | Exception:
        try:
            return compiled(choice, made, target, blobs)
        except Exception as error:  # whatever a schedule or the compiler may raise
            return error

    results = list(pool.map(one, choices))
    entries = [result for result in results if isinstance(result, dict)]
    for choice, result in zip(choices, results, strict=True):
        if isinstance(result, Exception):
            note(f"{name}: {choice.config} does not compile: {str(result).splitlines()[0]}")
    if not entries:
        raise CheckFailed(f"{name}: no candidate compiles: {results[0]}")
    return {"name": name, "record": record(choices[0], target), "outputs": made.outputs, "candidates": entries}


def record(choice: Choice, target: CudaTarget) -> dict:
    """What all lines of a workload have in common in a tuning log; a ``note`` where its path is not the target's."""
    workload = choice.workload
    conv = dense.as_conv2d(workload) if isinstance(workload, Dense) else workload
    unpacked = choice.schedule in (conv2d_direct, dense) and conv2d_direct.unpacked_shift(conv, target)
    return {
        "format": tuning_log.FORMAT,
        "version": tuning_log.VERSION,
        "tvm": version("apache-tvm"),
        "target": target.name,
        "threads": 1,
        "workload": tuning_log.workload_json(tuning_key(workload)),
        **({"note": UNPACKED} if unpacked else {}),
    }
