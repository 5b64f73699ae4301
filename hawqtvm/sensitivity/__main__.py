"""``python -m hawqtvm.sensitivity``."""

from collections.abc import Sequence
from dataclasses import replace

from hawqtvm.console import Parser, command, note, print_json, table
from hawqtvm.errors import BadInput
from hawqtvm.sensitivity import METHODS, PROBES, SAMPLES, TOLERANCE, Sensitivity, check_options, log_path, sensitivity
from hawqtvm.setting import ARTIFACTS, checkpoint_place


def show(result: Sensitivity) -> str:
    """A row a layer, the most sensitive first where 4 bits are possible, and the pairs."""

    def cell(values: dict[str, float], bits: str) -> str:
        return f"{values[bits]:.3e}" if bits in values else "-"

    ranked = sorted(result.layers, key=lambda name: -result.layers[name].get("4", 0.0))
    rows = [
        [name, *(cell(values[name], bits) for bits in ("4", "8") for values in (result.layers, result.stderr))]
        for name in ranked
    ]
    parts = [table(["layer", "4 bits", "std. error", "8 bits", "std. error"], rows)]
    if result.pairs:
        pairs = sorted(result.pairs, key=lambda pair: -abs(pair["value"]))
        cells = [[*pair["layers"], f"{pair['value']:.3e}"] for pair in pairs]
        parts.append(table(["layer", "with layer", "both at 4 bits"], cells))
    against = "cross-entropy with labels" if result.labels else "divergence from the float model's output"
    parts.append(f"{result.model}: increase of {against}, nats an image, by {result.method}")
    return "\n\n".join(parts)


def main(argv: Sequence[str] | None) -> int:
    from hawqtvm import source as sources
    from hawqtvm.files import check_appendable
    from hawqtvm.models import TRAINED
    from hawqtvm.quantize import quantize_source

    parser = Parser("sensitivity", "Finds what each layer's quantization to 4 and to 8 bits costs the network.")
    sources.add_options(parser)
    parser.add_argument(
        "--method",
        choices=METHODS,
        default=METHODS[0],
        help="fisher: estimated at the layers' outputs, weights and activations; hessian: by its trace, weights only; "
        "loss: measured, a run a layer (default: %(default)s)",
    )
    parser.add_argument(
        "--pairs", action="store_true", help="also measure two layers of a block together, a run a pair"
    )
    parser.add_argument(
        "--samples", metavar="N", type=int, default=SAMPLES, help="use at most so many images (default: %(default)s)"
    )
    parser.add_argument(
        "--labels",
        action="store_true",
        help="increase of cross-entropy with the images' labels (default: of divergence from the float model's output)",
    )
    parser.add_argument(
        "--tolerance",
        metavar="X",
        type=float,
        default=TOLERANCE,
        help="hessian stops when each trace's relative standard error is at most this (default: %(default)s)",
    )
    parser.add_argument(
        "--probes", metavar="N", type=int, default=PROBES, help="most probes of hessian (default: %(default)s)"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of order and signs (default: %(default)s)")
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="sensitivity.json",
        help="result; its measurements are kept beside it, to continue from (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    check_options(options.method, options.tolerance, options.probes, options.seed)
    if options.samples < 2:
        raise BadInput(f"--samples {options.samples}: give a number, 2 or more")
    source = sources.from_options(options)
    if source.model is None and not source.quantized:
        source = replace(source, model=sources.DEFAULT_MODEL)
    for place in (options.out, log_path(options.out)):  # before the long work
        check_appendable(place)
    quantized, digest = quantize_source(source, checkpoint_place(source, ARTIFACTS))
    weights = quantized.provenance.get("weights")
    images = sources.calibration_images(
        replace(source, limit=options.samples), quantized.name, quantized.graph.input_dims, weights
    )
    result = sensitivity(
        quantized,
        images,
        options.method,
        labels=options.labels,
        pairs=options.pairs,
        tolerance=options.tolerance,
        probes=options.probes,
        seed=options.seed,
        out=options.out,
        checkpoint_sha256=digest,
    )
    if weights != TRAINED:
        note(f"{result.model}: {weights}")
    note(f"sensitivity: {options.out}")
    if options.json:
        print_json(result.to_json())
    else:
        print(show(result))
    return 0


if __name__ == "__main__":
    command(main)
