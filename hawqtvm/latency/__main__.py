"""``python -m hawqtvm.latency``."""

from collections.abc import Sequence

from hawqtvm.console import Parser, command, print_json, table
from hawqtvm.latency import ROUNDS, Profile, check_counts, latency
from hawqtvm.plan import uniform
from hawqtvm.setting import ARTIFACTS, TUNING_LOGS, add_options, check_processor, checkpoint_place, machine, planned


def show(profile: Profile) -> str:
    """The layers, the checked plans, and how well the sum predicts them."""
    added = {edge.source: edge for edge in profile.costs.edges}

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    layers = [
        [name, cell(us.get(8)), cell(us.get(4)), *(cell(getattr(added.get(name), way, None)) for way in ("up", "down"))]
        for name, us in profile.costs.layers.items()
    ]
    checks = [
        [
            sum(bits == 4 for bits in check.bits.values()),
            f"{check.predicted / 1e3:.3f}",
            f"{check.measured / 1e3:.3f}",
            f"{check.error:+.1%}",
        ]
        for check in profile.checks
    ]
    found = profile.summary()
    return "\n\n".join(
        [
            table(["layer", "8 bits us", "4 bits us", "8 before 4", "4 before 8"], layers),
            table(["layers at 4", "predicted ms", "measured ms", "error"], checks),
            f"error: median {found['median_error']:.1%}, worst {found['worst_error']:.1%}; "
            f"rank correlation {found['rank_correlation']:.3f}",
        ]
    )


def main(argv: Sequence[str] | None) -> int:
    from hawqtvm import source as sources
    from hawqtvm.quantize import quantize_source

    parser = Parser("latency", "Measures what each layer takes at 4 and at 8 bits, in place, and checks the sum.")
    sources.add_options(parser)
    add_options(parser)
    parser.add_argument(
        "--tuning-logs",
        metavar="DIR",
        help=f"schedules measured with hawqtvm.tune, beside those that come with hawqtvm (default: {TUNING_LOGS})",
    )
    parser.add_argument("--plans", metavar="N", type=int, default=10, help="random plans to check (default: 10)")
    parser.add_argument(
        "--rounds", metavar="N", type=int, default=ROUNDS, help="turns of each program (default: %(default)s)"
    )
    parser.add_argument("--out", metavar="FILE", default="latency.json", help="default: %(default)s")
    options = parser.parse_args(argv)
    check_counts(options.plans, options.rounds)  # before the long work
    check_processor(options.target, "latency")
    machine(options.batch, options.threads, options.target)
    source = planned(sources.from_options(options), uniform(8))
    quantized, digest = quantize_source(source, checkpoint_place(source, ARTIFACTS))
    profile = latency(
        quantized,
        options.batch,
        target=options.target,
        threads=options.threads,
        residual=options.residual,
        activations=options.activations,
        tuning_logs=options.tuning_logs,
        plans=options.plans,
        rounds=options.rounds,
        out=options.out,
        checkpoint_sha256=digest,
    )
    if options.json:
        print_json(profile.to_json())
    else:
        print(show(profile))
    return 0


if __name__ == "__main__":
    command(main)
