"""``python -m hawqtvm.tune``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hawqtvm.bundle import bundle, gpu_target
from hawqtvm.console import Parser, command, note, print_json, table
from hawqtvm.errors import BadInput
from hawqtvm.plan import Plan, load_plan, uniform
from hawqtvm.setting import ARTIFACTS, TUNING_LOGS, add_options, checkpoint_place, planned
from hawqtvm.tune import TRIALS, tune, tuning_place

if TYPE_CHECKING:
    from hawqtvm.bundle.results import Result
    from hawqtvm.qnn.model import QuantizedModel
    from hawqtvm.tune.trials import Row


def networks(rows: "Sequence[Row]") -> dict[str, dict[str, float | None]]:
    """Of each plan's network the times of its layers, added up; None where one is missing."""

    def ms(plan: str, column: str) -> float | None:
        times = [(getattr(row, column), len(row.layers)) for row in rows if row.plan == plan]
        return None if any(us is None for us, _ in times) else sum(us * count for us, count in times) / 1e3

    return {plan: {"default_ms": ms(plan, "default_us"), "ms": ms(plan, "us")} for plan in {r.plan: 0 for r in rows}}


def show(rows: "Sequence[Row]") -> str:
    def cell(value: float | None, text: str) -> str:
        return "-" if value is None else text.format(value)

    cells = [
        [
            row.plan,
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
    headers = [
        "plan",
        "first layer",
        "layers",
        "operator",
        "shape",
        "schedule",
        "default us",
        "us",
        "tried",
        "failed",
    ]
    totals = [
        f"all layers, {plan}: {cell(ms['default_ms'], '{:.3f}')} ms with defaults, {cell(ms['ms'], '{:.3f}')} ms tuned"
        for plan, ms in networks(rows).items()
    ]
    return "\n".join([table(headers, cells), "", *totals])


def as_json(row: "Row | Result") -> dict:
    from schedules.tuning_log import workload_json

    return vars(row) | {"workload": workload_json(row.workload)}


def pack_bundle(options, quantized: "QuantizedModel", plan: Plan | None) -> int:
    made = bundle(
        quantized,
        options.bundle,
        plan,
        options.batch,
        target=options.target,
        residual=options.residual,
        trials=options.trials,
    )
    if options.json:
        print_json(vars(made) | {"path": str(made.path)})
    else:
        print(
            f"{made.path}: {made.candidates} candidates of {made.workloads} workloads, {made.bytes / 1e6:.1f} MB; "
            f"{made.failed} did not compile.\nOn a machine with the GPU: python {made.path.name} --out results.jsonl\n"
            "Then here: python -m hawqtvm.tune --results results.jsonl"
        )
    return 0


def take_results(options) -> int:
    from hawqtvm.bundle.results import take
    from hawqtvm.bundle.table import show as show_results

    logs, results = take(options.results, options.out, None if options.target == "native" else options.target)
    if options.json:
        print_json({"logs": list(map(str, logs)), "workloads": list(map(as_json, results))})
    else:
        print(show_results(results))
    for log in logs:
        note(f"tuning log: {log}")
    return 0


def main(argv: Sequence[str] | None) -> int:
    from hawqtvm import source as sources
    from hawqtvm.quantize import quantize_source

    parser = Parser("tune", "Measures schedules for a network's layers on a device; deploy then takes the fastest.")
    parser.add_argument("--bits", help="a plan.json, or 4 or 8 for all layers (default: 8 and then 4)")
    sources.add_options(parser)
    add_options(parser)
    parser.add_argument(
        "--trials",
        metavar="N",
        type=int,
        default=TRIALS,
        help="most configs to measure for each distinct workload (default: %(default)s)",
    )
    parser.add_argument("--tracker", metavar="HOST:PORT", help="measure on a TVM RPC tracker's devices, not here")
    parser.add_argument("--key", metavar="KEY", help="the key of those devices")
    parser.add_argument(
        "--bundle",
        metavar="FILE.pyz",
        help="instead: pack the candidates for an NVIDIA GPU (--target) and what measures them there with Python alone",
    )
    parser.add_argument("--results", metavar="FILE", help="instead: add what a bundle has measured to the logs")
    parser.add_argument(
        "--out",
        metavar="DIR",
        default=TUNING_LOGS,
        help="folder of the logs, to which this adds (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    if sum(map(bool, (options.bundle, options.results, options.tracker))) > 1:
        raise BadInput("--bundle, --results and --tracker exclude one another: choose one")
    if options.results:
        return take_results(options)
    plan = load_plan(options.bits) if options.bits else None
    source = planned(sources.from_options(options), plan or uniform(8))
    place = {"tracker": options.tracker, "key": options.key, "out": options.out}
    # before the long work
    if options.bundle:
        gpu_target(options.batch, options.target, options.trials, options.bundle)
    else:
        tuning_place(options.batch, options.threads, options.target, options.trials, **place)
    quantized, digest = quantize_source(source, checkpoint_place(source, ARTIFACTS))
    if plan:
        plan.check_belongs(quantized.name, digest)
    if options.bundle:
        return pack_bundle(options, quantized, plan)
    rows = tune(
        quantized,
        plan,
        options.batch,
        target=options.target,
        threads=options.threads,
        residual=options.residual,
        activations=options.activations,
        trials=options.trials,
        **place,
    )
    if options.json:
        print_json({"networks": networks(rows), "workloads": [as_json(row) for row in rows]})
    else:
        print(show(rows))
    return 0


if __name__ == "__main__":
    command(main)
