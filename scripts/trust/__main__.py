"""Command line of `scripts/bench_trust`: build, compare over and over, print the table."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hawqtvm.console import command
from hawqtvm.files import write_atomic
from hawqtvm.report.measure import ROUNDS
from scripts.trust.table import markdown
from scripts.trust.trials import read, trials


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if not options.table:
        from scripts.trust.subjects import build

        options.out.mkdir(parents=True, exist_ok=True)
        trials(options.out, build(options.out, options.model), options.count, options.rounds)
    table = markdown(read(options.out / "trials.jsonl"))
    write_atomic(options.out / "table.md", table)
    print(table, end="")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench_trust",
        description="Compares a network with itself and with slower builds of it, over and over, on a machine left "
        "alone and on one where another process computes; a run that was stopped continues where it was.",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("artifacts/trust"), help="what is kept (default: %(default)s)"
    )
    parser.add_argument("--model", default="digits", help="what is compared (default: %(default)s)")
    parser.add_argument("--count", type=int, default=100, help="comparisons of each kind (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each comparison (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="only print the table of what was measured")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error("--count must be at least 1")
    return options


if __name__ == "__main__":
    command(main)
