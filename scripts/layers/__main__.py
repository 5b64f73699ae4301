"""Command line of `scripts/bench_layers`: measure, print markdown, write JSON."""

import argparse
import datetime
import json
from collections.abc import Sequence
from pathlib import Path

from hawqtvm.console import command, note
from hawqtvm.files import write_atomic
from scripts.layers.measure import measure
from scripts.layers.report import summarize
from scripts.layers.table import markdown
from scripts.machine import machine


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the artifacts; 0, or BadInput for one that cannot be measured."""
    options = _parse(arguments)
    report = {
        "version": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        **summarize(measure(options.artifacts, options.rounds, note)),
    }
    if options.out:
        write_atomic(options.out, json.dumps(report, indent=1) + "\n")
    print(markdown(report, options.by_loss))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench_layers",
        description="Times every layer of artifacts in place, in interleaved rounds, beside this machine's peak.",
    )
    parser.add_argument("artifacts", metavar="ARTIFACT", type=Path, nargs="+", help="directories that deploy wrote")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each artifact (default: %(default)s)")
    parser.add_argument("--by-loss", action="store_true", help="layers that lose most time against the peak first")
    parser.add_argument("--out", metavar="FILE", type=Path, help="also write the report as JSON")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


if __name__ == "__main__":
    command(main)
