"""``python -m hawqtvm.report measure|compare|history``."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from hawqtvm.console import Parser, command, note, print_json, table
from hawqtvm.deploy import logs_folder
from hawqtvm.errors import BadInput
from hawqtvm.files import check_appendable, write_atomic
from hawqtvm.report import formats
from hawqtvm.report.again import again
from hawqtvm.report.compare import (
    EXIT_CODES,
    LAYER_FACTOR,
    NETWORK_FACTOR,
    Factors,
    check_comparable,
    compare,
    median_us,
)
from hawqtvm.report.history import append, read_history, trends
from hawqtvm.report.logs import Log, read_logs
from hawqtvm.report.measure import ROUNDS, TURNS, measure, measure_pairs
from hawqtvm.report.page import write_page
from hawqtvm.report.predicted import predictions, read_latency
from hawqtvm.report.report import Report, as_json, dated_changes, side_json
from hawqtvm.report.run import Run, artifacts_in, read_run, write_run


def measure_command(argv: Sequence[str]) -> int:
    parser = Parser("report measure", "Times artifacts, whole and layer by layer, and keeps every sample.")
    parser.add_argument("artifacts", metavar="ARTIFACT", nargs="+", help="directories that deploy wrote")
    parser.add_argument("--out", metavar="FILE", help="write the run there")
    parser.add_argument("--history", metavar="DIR", help="add the run to this history")
    parser.add_argument("--commit", metavar="ID", help="what was measured, for reports and histories")
    add_measuring(parser)
    options = parser.parse_args(argv)
    if not options.out and not options.history:
        parser.error("give --out FILE, --history DIR or both")

    if options.out:
        check_appendable(options.out)  # before the long work
    run = measure(options.artifacts, commit=options.commit, **measuring(options))
    if options.out:
        write_run(run, options.out)
    if options.history:
        note(f"added {append(options.history, run)}")
    rows = medians(run)
    if options.json:
        networks = [dict(zip(("network", "layer", "us"), row, strict=True)) for row in rows]
        print_json({"run": options.out, **side_json(run), "times": networks})
    else:
        print(table(["network", "layer", "us"], [[name, layer or "-", f"{us:.1f}"] for name, layer, us in rows]))
    return 0


def compare_command(argv: Sequence[str]) -> int:
    parser = Parser(
        "report compare",
        "Tells whether head is slower than base. Exit code 0: no; 1: a regression; 2: bad input; 3: too noisy to tell.",
    )
    parser.add_argument("base", metavar="BASE", help="a run file; with --interleave an artifact, or a folder of them")
    parser.add_argument("head", metavar="HEAD", help="what to judge, of the same kind")
    parser.add_argument("--interleave", action="store_true", help="measure both now, in turns")
    parser.add_argument("--commits", metavar=("BASE", "HEAD"), nargs=2, default=(None, None), help="for --interleave")
    parser.add_argument("--no-remeasure", action="store_true", help="never measure again: nothing is then confirmed")
    add_factors(parser)
    add_measuring(parser)
    parser.add_argument("--runs", metavar="DIR", help="with --interleave: keep base.json and head.json there")
    parser.add_argument("--history", metavar="DIR", help="show this history, and its changes, in the report")
    parser.add_argument("--latency", metavar="FILE", action="append", default=[], help="predicted times, latency.json")
    parser.add_argument("--tuning-logs", metavar="DIR", help="more tuning logs to list")
    for name, what in (("out", "JSON"), ("markdown", "markdown"), ("junit", "JUnit XML"), ("html", "one HTML page")):
        parser.add_argument(f"--{name}", metavar="FILE", help=f"write the report as {what}")
    parser.add_argument("--benchmark", metavar="FILE", help="write head's times for github-action-benchmark")
    options = parser.parse_args(argv)

    factors = chosen_factors(options)
    check_places(options)
    history, logs = history_of(options, factors), logs_of(options)
    for path in options.latency:
        read_latency(path)
    base, head = interleaved(options) if options.interleave else (read_run(options.base), read_run(options.head))
    once = (lambda: None) if options.no_remeasure else again(base, head)
    report = Report(
        comparison=compare(base, head, factors, once),
        predictions=predictions(head, options.latency),
        logs=logs,
        **history,
    )
    write_outputs(report, options)
    if options.json:
        print_json(as_json(report))
    else:
        print(formats.markdown(report), end="")
    return EXIT_CODES[report.comparison.verdict]


def history_command(argv: Sequence[str]) -> int:
    parser = Parser("report history", "Finds the steps and drifts in a history of runs.")
    parser.add_argument("history", metavar="DIR", help="where measure --history adds runs")
    parser.add_argument("--html", metavar="FILE", help="write the report as one HTML page")
    add_factors(parser)
    options = parser.parse_args(argv)

    report = Report(**history_of(options, chosen_factors(options)))
    if options.html:
        write_page(report, options.html)
    if options.json:
        print_json(as_json(report))
    else:
        print("\n".join(formats.sentence(found.as_json) for found in report.dated) or "no steps and no drifts")
    return 0


def add_measuring(parser: Parser) -> None:
    parser.add_argument(
        "--rounds", metavar="N", type=int, default=ROUNDS, help="processes, one after another (default: %(default)s)"
    )
    parser.add_argument("--turns", metavar="N", type=int, default=TURNS, help="in each round (default: %(default)s)")
    parser.add_argument("--threads", metavar="N", type=int, help="threads a call (default: as deployed)")


def measuring(options: Namespace) -> dict:
    return {name: getattr(options, name) for name in ("rounds", "turns", "threads")}


def add_factors(parser: Parser) -> None:
    for name, default in (("network", NETWORK_FACTOR), ("layer", LAYER_FACTOR)):
        parser.add_argument(
            f"--{name}-percent",
            metavar="P",
            type=float,
            default=round(100 * (default - 1), 6),
            help=f"how much slower a {name} must be to count (default: %(default)g)",
        )


def chosen_factors(options: Namespace) -> Factors:
    return Factors(1 + options.network_percent / 100, 1 + options.layer_percent / 100)


def check_places(options: Namespace) -> None:
    """BadInput for an output that could not be written, before the long work."""
    for path in (options.out, options.markdown, options.junit, options.html, options.benchmark):
        if path:
            check_appendable(path)


def interleaved(options: Namespace) -> tuple[Run, Run]:
    base, head = artifacts_in(options.base), artifacts_in(options.head)
    if not len(base) == len(head) == 1:
        names = sorted({path.name for path in base} & {path.name for path in head})
        if not names:
            raise BadInput(f"{options.base} and {options.head} hold no artifacts of one name: name them alike")
        base, head = ([Path(folder) / name for name in names] for folder in (options.base, options.head))
    runs = measure_pairs(
        base,
        head,
        commits=tuple(options.commits),
        check=lambda base, head: check_comparable(base, head, options.rounds),
        **measuring(options),
    )
    if options.runs:
        for run, name in zip(runs, ("base", "head"), strict=True):
            write_run(run, Path(options.runs) / f"{name}.json")
    return runs


def history_of(options: Namespace, factors: Factors) -> dict:
    """The trends and their changes, if a history is named."""
    if not options.history:
        return {}
    found = trends(read_history(options.history))
    return {"trends": found, "dated": dated_changes(found, factors.network, factors.layer)}


def logs_of(options: Namespace) -> list[Log]:
    """Your tuning logs and those that come with hawqtvm."""
    from schedules.tuned import SHIPPED  # brings TVM

    return read_logs([logs_folder(options.tuning_logs), SHIPPED])


def write_outputs(report: Report, options: Namespace) -> None:
    if options.out:
        write_atomic(options.out, json.dumps(as_json(report), indent=1) + "\n")
    if options.markdown:
        write_atomic(options.markdown, formats.markdown(report))
    if options.junit:
        write_atomic(options.junit, formats.junit(report))
    if options.benchmark:
        write_atomic(options.benchmark, json.dumps(formats.benchmark(report), indent=1) + "\n")
    if options.html:
        write_page(report, options.html)


COMMANDS = {"measure": measure_command, "compare": compare_command, "history": history_command}


def medians(run: Run) -> list[tuple[str, str | None, float]]:
    """(network, layer or None, microseconds) of each."""
    return [(net.name, layer, median_us(rounds)) for net in run.networks for layer, rounds in net.series.items()]


def main(argv: Sequence[str] | None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser("report", "Says whether a network, or a layer, got slower; each command has --help.")
    parser.add_argument("command", choices=COMMANDS)
    return COMMANDS[parser.parse_args(argv[:1]).command](argv[1:])


if __name__ == "__main__":
    command(main)
