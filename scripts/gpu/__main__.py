"""Command line of `scripts/silicon`: kernels by bundles, then whole networks, then PyTorch beside them."""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from hawqtvm.console import command, note, table
from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.files import write_atomic
from hawqtvm.runner.driver import Driver, DriverError, Facts
from scripts.gpu.kernels import measured, packed, sanitized

PARTS = {"kernels": (), "networks": ("tvm", "torch"), "peers": ("torch",)}  # and what they need
REPORT = "networks.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all is right; BadInput without a GPU; CheckFailed where something is wrong, once everything has run."""
    options = _parse(arguments)
    try:
        driver = Driver()
        facts = driver.facts(0)
    except DriverError as error:
        raise BadInput(f"no NVIDIA GPU can be used: {error}") from None
    note(f"{facts.name} ({facts.arch}), driver of CUDA {driver.version()}")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    report = {"version": 1, "measured": now, "device": asdict(facts), "driver": driver.version()}
    report |= {"batch": options.batch, "wrong": {}, "skipped": {}}
    for part, work in (("kernels", _kernels), ("networks", _networks), ("peers", _peers)):
        if part in options.parts:
            _do(part, lambda work=work: work(options, facts), report)
    write_atomic(options.logs / facts.folder / REPORT, json.dumps(report, indent=1) + "\n")
    print(show(report))
    if report["wrong"]:
        raise CheckFailed("; ".join(f"{part}: {reason}" for part, reason in report["wrong"].items()))
    return 0


def _do(part: str, work: Callable[[], list[dict]], report: dict) -> None:
    """A part's findings into the report, or why there are none."""
    missing = [name for name in PARTS[part] if importlib.util.find_spec(name) is None]
    try:
        if missing:
            raise BadInput(f"{', '.join(missing)} is not installed")
        report[part] = work()
    except BadInput as error:
        report["skipped"][part] = str(error)
    except CheckFailed as error:
        report["wrong"][part] = str(error)


def _kernels(options: argparse.Namespace, facts: Facts) -> list[dict]:
    bundles = options.bundles or [packed(model, facts.arch, options.batch, options.trials) for model in options.models]
    clean = sanitized(bundles) if options.sanitize else "not asked for"
    return [measured(bundle, facts, options.logs) | {"sanitizer": clean} for bundle in bundles]


def _networks(options: argparse.Namespace, facts: Facts) -> list[dict]:
    from scripts.gpu.networks import network

    return [network(name, bits, options.batch, facts, options.logs) for name in options.models for bits in (8, 4)]


def _peers(options: argparse.Namespace, facts: Facts) -> list[dict]:
    from scripts.gpu.peers import peer

    return [peer(name, options.batch) for name in options.models]


def show(report: dict) -> str:
    """Networks and peers as a table, and what was skipped."""

    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [
        [f"{row['model']} INT{row['bits']}", ms(row["gpu_ms"]), ms(row["call_ms"]), ms(row["layers_ms"]), row["note"]]
        for row in report.get("networks", ())
    ]
    rows += [[f"{row['model']} {row['what']}", ms(row["ms"]), "-", "-", "-"] for row in report.get("peers", ())]
    skipped = [f"skipped: {part}: {reason}" for part, reason in report["skipped"].items()]
    return "\n".join([table(["network", "GPU ms", "call ms", "layers' sum ms", "note"], rows), *skipped])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="silicon",
        description="Checks and times kernels and networks on this machine's first NVIDIA GPU and logs them; "
        "CUDA_VISIBLE_DEVICES says which that is.",
    )
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50"], metavar="MODEL")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="images a call (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=24, metavar="N", help="configs a workload (default: %(default)s)")
    parser.add_argument("--bundles", nargs="+", type=Path, metavar="FILE", help="made elsewhere, instead of here")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    parser.add_argument("--sanitize", action="store_true", help="kernels under compute-sanitizer, too: takes long")
    parser.add_argument("--logs", type=Path, default=Path("tuning_logs"), metavar="DIR", help="(default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    command(main)
