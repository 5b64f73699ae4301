"""Command line of `scripts/bench_peers`: build, measure, write peers.json and peers.md, or those of another mode."""

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path

from hawqtvm.errors import HawqtvmError
from hawqtvm.files import write_atomic
from hawqtvm.models import MODELS
from scripts.machine import machine
from scripts.peers.measure import build_all, cold_starts, measure_case
from scripts.peers.memory import memory_case
from scripts.peers.systems import BASELINE, SYSTEMS, Build, Case
from scripts.peers.table import markdown

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted({"numpy", "torch", "onnx", *(package for system in SYSTEMS.values() for package in system.packages)})

DEFAULTS = {"models": ["resnet18", "resnet50"], "threads": [1, 2], "systems": list(SYSTEMS)}
MEMORY_DEFAULTS = {
    "models": ["resnet50"],
    "threads": [1],
    "systems": ["hawqtvm-int8", "hawqtvm-int4", "onnxruntime", "openvino"],
}


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison; 0 if every system gave numbers, 1 if one failed, 2 for a wrong option."""
    options = _parse(arguments)
    report = {
        "version": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {package: version(package) for package in PACKAGES},
        "systems": options.systems,
        "cases": [],
        "cold_start": None,
        "memory": [],
    }
    build = find_build(options.out)
    if options.cold_start:
        cases = [Case(options.models[0], 1, options.threads[0])]
    else:
        cases = [Case(m, b, t) for m in options.models for b in options.batches for t in options.threads]
    failures = build_all(options.systems, cases, build, say)
    for case in cases:
        why = {name: failures[name, case.model] for name in options.systems}
        shape = MODELS[case.model].input_shape
        if options.cold_start:
            report["cold_start"] = cold_starts(case, why, build, shape, options.runs, say)
        elif options.memory:
            report["memory"].append(memory_case(case, why, build, shape, options.runs, say))
        else:
            found = measure_case(case, why, build, options.rounds, say)
            report["cases"].append({**found, "load_average": os.getloadavg()[0]})
        # after every case, so that an interrupted run leaves what it measured
        name = "cold_start" if options.cold_start else "memory" if options.memory else "peers"
        write_atomic(options.out / f"{name}.json", json.dumps(report, indent=1) + "\n")
        write_atomic(options.out / f"{name}.md", markdown(report))
    print(markdown(report))
    results = [*report["cases"], *report["memory"], *([report["cold_start"]] if options.cold_start else [])]
    return int(any(result.get("failed") for case in results for result in case["systems"].values()))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench_peers", description="Times hawqtvm against ONNX Runtime and OpenVINO, in interleaved rounds."
    )
    parser.add_argument("--models", type=_names(DEFAULTS["models"]))
    parser.add_argument("--batches", type=_counts, default=[1, 8], help="comma-separated batch sizes")
    parser.add_argument("--threads", type=_counts, help="comma-separated thread counts")
    parser.add_argument("--systems", type=_names(DEFAULTS["systems"]), help=", ".join(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=10, help="turns of each system in each case")
    parser.add_argument("--out", type=Path, default=Path("artifacts/peers"), help="where reports and built networks go")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--cold-start",
        action="store_true",
        help="instead: process start to first logits, first model, batch 1, first thread count",
    )
    mode.add_argument(
        "--memory",
        action="store_true",
        help="instead: memory of each system's process and size on disk; by default ResNet-50, one thread",
    )
    parser.add_argument(
        "--runs", type=int, default=5, help="fresh processes of each system for --cold-start and --memory"
    )
    options = parser.parse_args(arguments)
    for name, usual in {**DEFAULTS, **(MEMORY_DEFAULTS if options.memory else {})}.items():
        if getattr(options, name) is None:
            setattr(options, name, usual)
    if min(options.rounds, options.runs) < 1:
        parser.error("--rounds and --runs must be at least 1")
    options.out = options.out.resolve()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out} cannot be a folder ({error.strerror}): choose another")
    return options


def _names(known: list[str]):
    def parse(text: str) -> list[str]:
        names = list(dict.fromkeys(text.split(",")))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}")
        return names

    return parse


def _counts(text: str) -> list[int]:
    parts = list(dict.fromkeys(text.split(",")))
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a comma-separated list of counts such as 1,8")
    return [int(part) for part in parts]


def find_build(out: Path) -> Build:
    """The folder of built networks under `out`: another one whenever the old ones could differ."""
    models = [ROOT / "hawqtvm/data.py", Path(__file__).with_name("build.py"), *(ROOT / "hawqtvm/models").rglob("*.py")]
    ours = [path for folder in ("hawqtvm", "relay_passes", "schedules") for path in (ROOT / folder).rglob("*.py")]
    ours += (ROOT / "tuning_logs").rglob("*.jsonl")
    peers = [f"{package} {version(package)}" for package in PACKAGES if package not in SYSTEMS[BASELINE].packages]
    return Build(out / f"build-{_fingerprint(models, peers)}", _fingerprint(ours, [version("apache-tvm")]))


def _fingerprint(files: list[Path], facts: list[str]) -> str:
    digest = hashlib.sha256("\n".join(facts).encode())
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def version(package: str) -> str:
    """An installed distribution's version, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HawqtvmError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit("stopped; finished cases are in the reports, and built networks are kept")
