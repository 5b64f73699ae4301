"""``python -m hawqtvm.tune``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hawqtvm.console import Parser, command, print_json, table
from hawqtvm.plan import load_plan
from hawqtvm.setting import ARTIFACTS, TUNING_LOGS, add_bits, add_options, checkpoint_place, planned
from hawqtvm.tune import TRIALS, tune, tuning_machine

if TYPE_CHECKING:
    from hawqtvm.tune.trials import Row


def network_ms(rows: "Sequence[Row]", column: str) -> float | None:
    """The times of a network's layers, added up; None where one is missing."""
    times = [(getattr(row, column), len(row.layers)) for row in rows]
    return None if any(us is None for us, _ in times) else sum(us * count for us, count in times) / 1e3


def show(rows: "Sequence[Row]") -> str:
    def cell(value: float | None, text: str) -> str:
        return "-" if value is None else text.format(value)

    cells = [
        [
            row.layers[0],
            len(row.layers),
            type(row.workload).__name__,
            "x".join(map(str, row.workload.out_dims)),
            row.schedule,
            cell(row.default_us, "{:.1f}"),
            cell(row.us, "{:.1f}"),
            row.tried,
            row.failed,
        ]
        for row in rows
    ]
    headers = ["first layer", "layers", "operator", "shape", "schedule", "default us", "best us", "tried", "failed"]
    before, after = (network_ms(rows, column) for column in ("default_us", "us"))
    total = f"all layers: {cell(before, '{:.3f}')} ms with defaults, {cell(after, '{:.3f}')} ms tuned"
    return f"{table(headers, cells)}\n\n{total}"


def as_json(row: "Row") -> dict:
    from schedules.tuning_log import workload_json

    return vars(row) | {"workload": workload_json(row.workload)}


def main(argv: Sequence[str] | None) -> int:
    from hawqtvm import source as sources
    from hawqtvm.files import check_appendable
    from hawqtvm.quantize import quantize_source
    from schedules.tuning_log import log_path, this_device

    parser = Parser("tune", "Measures schedules for a network's layers on this machine; deploy then takes the fastest.")
    add_bits(parser)
    sources.add_options(parser)
    add_options(parser)
    parser.add_argument(
        "--trials",
        metavar="N",
        type=int,
        default=TRIALS,
        help="configs to measure of every schedule for each distinct workload (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default=TUNING_LOGS,
        help="folder of the logs, to which this adds (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    plan = load_plan(options.bits)
    source = planned(sources.from_options(options), plan)
    threads, level = tuning_machine(options.batch, options.threads, options.target, options.trials)
    check_appendable(log_path(Path(options.out), this_device(), level.name, threads))  # before the long work
    quantized, digest = quantize_source(source, checkpoint_place(source, ARTIFACTS))
    plan.check_belongs(quantized.name, digest)
    rows = tune(
        quantized,
        plan,
        options.batch,
        target=options.target,
        threads=threads,
        residual=options.residual,
        activations=options.activations,
        trials=options.trials,
        out=options.out,
    )
    if options.json:
        network = {"default_ms": network_ms(rows, "default_us"), "ms": network_ms(rows, "us")}
        print_json({"network": network, "workloads": [as_json(row) for row in rows]})
    else:
        print(show(rows))
    return 0


if __name__ == "__main__":
    command(main)
