"""``python -m hawqtvm.allocate``."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from hawqtvm.allocate import Allocation, resolve, solve
from hawqtvm.allocate.explain import explain
from hawqtvm.allocate.limits import SHOWN, UNITS, absolute, in_unit, shown
from hawqtvm.allocate.pareto import POINTS, pareto
from hawqtvm.allocate.problem import LIMITED, SENSITIVITY, Problem
from hawqtvm.allocate.solver import SECONDS
from hawqtvm.console import Parser, command, note, print_json, table
from hawqtvm.errors import BadInput
from hawqtvm.setting import ARTIFACTS, checkpoint_place

PLAN, FRONTIER = "plan.json", "frontier.json"
FIGURE_LIMITS = "0.75,0.5,0.25"  # as published


def options_parser() -> Parser:
    from hawqtvm import source as sources

    parser = Parser(
        "allocate", "Picks each layer's bits: the least sensitivity under limits of size, BOPS and latency."
    )
    sources.add_options(parser)
    parser.add_argument(
        "--sensitivity", metavar="FILE", help="sensitivity.json, as python -m hawqtvm.sensitivity has it"
    )
    parser.add_argument("--latency-profile", metavar="FILE", help="latency.json; needed where latency counts")
    parser.add_argument(
        "--layers", metavar="FILE", help="a table of layers (keys layers, tied) in place of a model and measured files"
    )
    for name in LIMITED:
        units = ", ".join(UNITS[name])
        parser.add_argument(
            f"--{name}", metavar="LIMIT", help=f"a fraction of the way from all 4 bits to all 8, or a value in {units}"
        )
    parser.add_argument(
        "--fix", metavar="LAYER=BITS", action="append", default=[], help="settle a layer's bits; may be given again"
    )
    parser.add_argument(
        "--seconds", metavar="S", type=float, default=SECONDS, help="CBC's time for one program (default: %(default)g)"
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--explain", metavar="LAYER", help="print why the layer gets its bits instead of writing a plan")
    modes.add_argument(
        "--pareto", choices=LIMITED, help="write the frontier of sensitivity and this one instead: JSON, PNG and SVG"
    )
    modes.add_argument(
        "--figure", metavar="PATH", help="draw bits, sensitivity and speed-up of each layer instead: PNG and SVG"
    )
    parser.add_argument(
        "--points", metavar="N", default=str(POINTS), help="points of the frontier, or all (default: %(default)s)"
    )
    parser.add_argument(
        "--figure-limits",
        metavar="A,B,C",
        default=FIGURE_LIMITS,
        help="the figure's latency limits (default: %(default)s)",
    )
    parser.add_argument("--out", metavar="FILE", help=f"(default: {PLAN}, with --pareto {FRONTIER})")
    return parser


def read_problem(options: Namespace) -> Problem:
    """The problem that the options name, with the layers of ``--fix`` settled."""
    from hawqtvm.allocate.inputs import measured_problem, table_problem

    if not 0 < options.seconds < float("inf"):
        raise BadInput(f"--seconds {options.seconds:g}: give a number above 0")
    named = [
        f"--{n.replace('_', '-')}"
        for n in ("sensitivity", "latency_profile", "model", "checkpoint")
        if vars(options)[n]
    ]
    if options.layers:
        if named:
            raise BadInput(f"--layers stands in place of {named[0]}: give one of them")
        return table_problem(options.layers)
    if not options.sensitivity:
        raise BadInput(
            "--sensitivity FILE is needed (python -m hawqtvm.sensitivity writes it), or a table as --layers FILE"
        )

    from hawqtvm import source as sources
    from hawqtvm.plan import uniform
    from hawqtvm.quantize import quantize_source
    from hawqtvm.setting import planned

    source = planned(sources.from_options(options), uniform(8))
    quantized, digest = quantize_source(source, checkpoint_place(source, ARTIFACTS))
    return measured_problem(quantized, digest, options.sensitivity, options.latency_profile)


def fixes(options: Namespace) -> dict[str, int]:
    """{layer: bits} of ``--fix``."""
    found = {}
    for text in options.fix:
        name, equals, bits = text.rpartition("=")
        if not equals or bits not in ("4", "8"):
            raise BadInput(f"--fix {text}: give a layer and its bits, as {name or 'layer1.0.conv1'}=8")
        if found.setdefault(name, int(bits)) != int(bits):
            raise BadInput(f"--fix gives {name} both 4 and 8 bits; give it once")
    return found


def show(allocation: Allocation) -> str:
    """The two tables: a row a layer, and the plan between the uniform ones."""
    problem, known = allocation.problem, allocation.problem.quantities
    costs = [name for name in LIMITED if name in known]
    rows = []
    for a, bits in allocation.bits.items():
        own = [known[name].layers[a][bits] for name in (SENSITIVITY, *costs)]
        cells = [f"{in_unit(name, value):.4g}" for name, value in zip(costs, own[1:], strict=True)]
        why = "tied" if any(a in group for group in problem.tied) else ""
        rows.append([a, bits, f"{own[0]:.4g}", *cells, "fixed" if a in problem.fixed else why])
    headers = ["layer", "bits", SENSITIVITY, *(f"{name} {SHOWN[name]}" for name in costs), ""]
    plans = [allocation.bits, problem.uniform(4), problem.uniform(8)]
    summary = [[SENSITIVITY, *(f"{known[SENSITIVITY].at(bits):.6g}" for bits in plans), "-"]]
    for name in costs:
        limit = allocation.limits.get(name)
        values = [f"{in_unit(name, known[name].at(bits)):.6g}" for bits in plans]
        summary.append([f"{name} {SHOWN[name]}", *values, "-" if limit is None else f"{in_unit(name, limit):.6g}"])
    low = sum(bits == 4 for bits in allocation.bits.values())
    proof = "proved optimal" if allocation.gap == 0 else gap_text(allocation)
    return "\n\n".join(
        [
            table(headers, rows),
            table(["network", "plan", "all 4", "all 8", "limit"], summary),
            f"{low} of {len(rows)} layers at 4 bits, {proof}",
        ]
    )


def gap_text(allocation: Allocation) -> str:
    return f"not proved optimal: the least sensitivity is at most {allocation.gap:.4g} lower (more with --seconds)"


def write_plan(problem: Problem, limits: dict[str, float], options: Namespace) -> None:
    from hawqtvm.files import write_atomic

    if not limits:
        raise BadInput("no limit: give one or more of --size, --bops and --latency")
    out = Path(options.out or PLAN)
    allocation = solve(problem, limits, options.seconds)
    plan = allocation.plan(out.stem).to_json()
    write_atomic(out, json.dumps(plan, indent=1) + "\n")
    if allocation.gap:
        note(gap_text(allocation))
    if options.json:
        print_json({"plan": str(out), "bits": allocation.bits} | allocation.to_json())
    else:
        print(f"{show(allocation)}\nplan: {out}")


def print_explanation(problem: Problem, limits: dict[str, float], options: Namespace) -> None:
    if not limits:
        raise BadInput("no limit: --explain says why under one or more of --size, --bops and --latency")
    found = explain(solve(problem, limits, options.seconds), options.explain, options.seconds)
    if options.json:
        print_json(found.to_json())
    else:
        print(found)


def write_frontier(problem: Problem, limits: dict[str, float], options: Namespace) -> None:
    from hawqtvm.allocate.figure import figure_paths, frontier_figure, write_figure
    from hawqtvm.files import write_atomic

    over = options.pareto
    if over in limits:
        raise BadInput(f"--pareto {over} takes every limit on {over} in turn: leave --{over} out")
    absolute(problem, over, 1)
    if options.points != "all" and not (options.points.isdecimal() and int(options.points) > 1):
        raise BadInput(f"--points {options.points}: give a whole number, 2 or more, or all")
    out = Path(options.out or FRONTIER)
    if out in figure_paths(out.with_suffix("")):
        raise BadInput(
            f"--out {out}: the frontier is JSON, with its pictures beside it; give a name that ends in .json"
        )
    points = pareto(problem, over, limits, None if options.points == "all" else int(options.points), options.seconds)
    result = {
        "version": 1,
        "over": over,
        "model": problem.model,
        "checkpoint": problem.checkpoint,
        "provenance": problem.provenance,
        "points": [point.to_json() | {"bits": point.bits} for point in points],
    }
    pictures = write_figure(frontier_figure(points, over), out.with_suffix(""))
    write_atomic(out, json.dumps(result, indent=1) + "\n")
    if options.json:
        print_json({"frontier": str(out), "pictures": list(map(str, pictures))} | result)
        return
    cells = [
        [
            f"{in_unit(over, point.predicted[over]):.6g}",
            f"{point.predicted[SENSITIVITY]:.6g}",
            sum(bits == 4 for bits in point.bits.values()),
        ]
        for point in points
    ]
    print(table([f"{over} {SHOWN[over]}", SENSITIVITY, "layers at 4 bits"], cells))
    print(f"\nfrontier: {out}, {', '.join(map(str, pictures))}")


def draw(problem: Problem, limits: dict[str, float], options: Namespace) -> None:
    from hawqtvm.allocate.figure import figure_paths, layers_figure, write_figure

    figure_paths(options.figure)
    if "latency" in limits:
        raise BadInput("--figure takes its latency limits from --figure-limits: leave --latency out")
    allocations = {}
    for text in options.figure_limits.split(","):
        limit = absolute(problem, "latency", text)
        label = shown("latency", limit) + (f" ({text})" if text.replace(".", "").isdecimal() else "")
        allocations[label] = solve(problem, limits | {"latency": limit}, options.seconds)
    written = [str(path) for path in write_figure(layers_figure(allocations), options.figure)]
    if options.json:
        plans = [{"limit": label, "bits": a.bits} | a.to_json() for label, a in allocations.items()]
        print_json({"pictures": written, "plans": plans})
    else:
        print(f"figure: {', '.join(written)}")


def main(argv: Sequence[str] | None) -> int:
    options = options_parser().parse_args(argv)
    wanted = fixes(options)
    problem = read_problem(options)
    limits = resolve(problem, {name: vars(options)[name] for name in LIMITED})
    problem = problem.fix(wanted)
    run = (
        draw
        if options.figure
        else write_frontier
        if options.pareto
        else print_explanation
        if options.explain
        else write_plan
    )
    run(problem, limits, options)
    return 0


if __name__ == "__main__":
    command(main)
