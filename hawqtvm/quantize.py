"""Stage 1: a float module and calibration images -> a quantized model with the parameters for 4 and for 8 bits."""

from collections.abc import Iterable, Sequence

import numpy as np

from hawqtvm.console import Parser, Progress, command, note, print_json, table
from hawqtvm.errors import BadInput
from hawqtvm.qnn.graph import Graph
from hawqtvm.qnn.model import LayerWeights, Quantization, QuantizedModel
from hawqtvm.qnn.quantizers import METHODS, weight_codes, weight_scales

SAMPLES = 8
# a channel's scale keeps its bias below 2**28 and its rescaling factor in a dyadic number's reach
BIAS_LIMIT = 2.0**28
SMALLEST_SCALE = 2.0**-20


def quantize(
    module,
    batches: Iterable,
    name: str = "model",
    activation_range: str = "mse",
    weight_range: str = "mse",
    provenance: dict | None = None,
) -> QuantizedModel:
    """Quantizes a ``torch.nn.Module`` after training.

    ``batches``: float32 arrays or tensors ``(N, C, H, W)``, as the module takes them; their shape is the model's.
    ``activation_range``, ``weight_range``: "minmax", "percentile" or "mse".  Batch norm is folded first.
    Raises BadInput: an unsupported operator, NaN weights or images, an empty set.
    """
    from hawqtvm.calibrate import calibrate, checked_batch
    from hawqtvm.frontend.storage import build_graph
    from hawqtvm.frontend.trace import trace
    from hawqtvm.qnn.reference import quantize_input

    for method in (activation_range, weight_range):
        if method not in METHODS:
            raise BadInput(f"range method {method!r}; choose {', '.join(METHODS)}")
    batches = list(batches)
    if not batches:
        raise BadInput("the calibration set is empty; give at least one image")
    first = checked_batch(batches[0], None)
    steps, weights = trace(module, first.shape[1:])
    if not weights:
        raise BadInput("the model has no convolution and no linear layer: there is nothing to quantize")
    graph = build_graph(tuple(first.shape[1:]), steps)
    ranges, constant = calibrate(graph, weights, batches, activation_range)
    warnings = [f"activation {name} is 0 on all calibration images" for name in constant]
    layers = {}
    with Progress("weights", len(graph.layers)) as progress:
        for step in graph.layers:
            layers[step.name], empty = quantize_layer(graph, step.name, *weights[step.name], ranges, weight_range)
            if empty:
                warnings.append(f"layer {step.name}: {len(empty)} all-zero output channels ({empty[0]} is the first)")
            progress(step.name)
    for warning in warnings:
        note(f"warning: {warning}")
    model = QuantizedModel(
        name,
        graph,
        layers,
        ranges,
        np.empty(0, "uint8"),
        {
            "weights": "trained",
            "activation_range": activation_range,
            "weight_range": weight_range,
            "calibration_images": sum(len(b) for b in batches),
            "warnings": warnings,
        }
        | (provenance or {}),
    )
    model.samples = quantize_input(Quantization("uint8", *ranges["input"]["uint8"]), first[:SAMPLES])
    return model


def quantize_layer(
    graph: Graph, name: str, weight: np.ndarray, bias: np.ndarray, ranges: dict, method: str
) -> tuple[LayerWeights, list[int]]:
    """The layer at 4 and 8 bits, and its all-zero output channels (whose output is their bias)."""
    source = graph.tensors[graph.step(name).inputs[0]]
    codes, scales = {}, {}
    empty = np.flatnonzero(np.abs(weight.reshape(len(weight), -1)).max(1) == 0)
    for bits in (4, 8):
        found = weight_scales(weight, method, bits)
        used = found[found > 0]
        in_scale = ranges[source.ranges]["uint8" if source.kind == "input" else f"uint{bits}"][0]
        # with no weight at all only the bias is left: twenty bits for it
        alone = max(float(np.abs(bias).max()), 1e-6) / (in_scale * 2.0**20)
        found[found == 0] = np.median(used) if used.size else alone
        smallest = np.maximum(np.abs(bias) / (in_scale * BIAS_LIMIT), found.max() * SMALLEST_SCALE)
        scales[bits] = np.maximum(found, smallest)
        codes[bits] = weight_codes(weight, scales[bits], bits)
    return LayerWeights(weight, bias, codes, scales), empty.tolist()


def main(argv: Sequence[str] | None) -> int:
    from hawqtvm.source import add_options, from_options, quantize_source

    parser = Parser(
        "quantize", "Quantizes a trained model: folds batch norm, calibrates, keeps 4- and 8-bit parameters."
    )
    add_options(parser)
    parser.add_argument("--out", required=True, help="directory of the quantized checkpoint")
    options = parser.parse_args(argv)
    source = from_options(options)
    if source.quantized:
        raise BadInput(f"{source.checkpoint} is quantized already; give float weights")
    from pathlib import Path

    model, digest = quantize_source(source, Path(options.out))
    rows = []
    for step in model.graph.layers:
        layer = model.layers[step.name]
        error = {
            bits: np.square(
                layer.codes[bits] * layer.scales[bits].reshape(-1, *[1] * (layer.weight.ndim - 1)) - layer.weight
            ).sum()
            for bits in (4, 8)
        }
        power = max(float(np.square(layer.weight).sum()), 1e-30)
        rows.append(
            [step.name, "x".join(map(str, layer.weight.shape)), *(f"{(error[b] / power) ** 0.5:.4f}" for b in (4, 8))]
        )
    summary = {
        "model": model.name,
        "checkpoint": options.out,
        "sha256": digest,
        "tied": model.graph.tied(),
        "fixed": model.graph.fixed(),
        "provenance": model.provenance,
    }
    if options.json:
        print_json(
            summary | {"layers": [dict(zip(("name", "shape", "error4", "error8"), r, strict=True)) for r in rows]}
        )
    else:
        print(table(["layer", "weight", "error at 4 bits", "at 8 bits"], rows))
        print(f"\n{model.name} ({model.provenance['weights']}): checkpoint {options.out}, weights sha256 {digest[:12]}")
    return 0


if __name__ == "__main__":
    command(main)
