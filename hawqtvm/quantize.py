"""Stage 1: a float module and calibration images -> a quantized model with the parameters for 4 and for 8 bits."""

from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hawqtvm.checkpoint import FORMAT, MANIFEST, load_checkpoint, save_checkpoint
from hawqtvm.console import Parser, Progress, command, note, print_json, table
from hawqtvm.errors import BadInput
from hawqtvm.files import check_directory
from hawqtvm.qnn.graph import Graph
from hawqtvm.qnn.model import LayerWeights, Quantization, QuantizedModel
from hawqtvm.qnn.quantizers import METHODS, weight_codes, weight_scales
from hawqtvm.setting import ARTIFACTS, checkpoint_place
from hawqtvm.source import Source, add_options, calibration_images, fingerprint, float_model, from_options

SAMPLES = 8
CALIBRATION_BATCH = 32
# a channel's scale keeps its bias below 2**28 and its rescaling factor in a dyadic number's reach
BIAS_LIMIT = 2.0**28
SMALLEST_SCALE = 2.0**-20
COMPARED = 2  # images on which the traced graph is held against the module
TRACED_ERROR = 1e-3


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
    with evaluating(module):
        steps, weights = trace(module, first.shape[1:])
        if not weights:
            raise BadInput("the model has no convolution and no linear layer: there is nothing to quantize")
        graph = build_graph(tuple(first.shape[1:]), steps)
        ranges, constant = calibrate(graph, weights, batches, activation_range)
        check_traced(module, graph, weights, first[:COMPARED])
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


@contextmanager
def evaluating(module):
    """The module in eval mode; afterwards each of its parts is in the mode it was in."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode


def check_traced(module, graph: Graph, weights: dict[str, tuple], images: np.ndarray) -> None:
    """BadInput when the steps do not compute what the module does: torch.fx cannot see everything."""
    import torch

    from hawqtvm.qnn.reference import last, run_float

    with torch.no_grad():
        expected = module(torch.from_numpy(images.copy())).numpy().ravel()
    error = np.linalg.norm(last(run_float(graph, weights, images)).ravel() - expected)
    if not error <= TRACED_ERROR * max(float(np.linalg.norm(expected)), 1e-6):
        raise BadInput(
            f"torch.fx does not trace {type(module).__name__} faithfully (its output differs by {error:g}): write "
            "`x = x + y` instead of `x += y`, and leave out what depends on training or on values"
        )


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


def weight_error(layer: LayerWeights, bits: int) -> float:
    """Normalized L2 of the quantized weight from the float one."""
    error = np.linalg.norm(layer.dequantized(bits) - layer.weight)
    return float(error / max(np.linalg.norm(layer.weight), 1e-15))


def quantize_source(source: Source, cache: Path | None = None) -> tuple[QuantizedModel, str | None]:
    """The quantized model a source names, and its weights' sha256 where it is on disk.

    A quantized checkpoint is loaded.  Anything else is quantized, unless ``cache`` already holds the result of the same
    model, weights, data and options; the result is kept there.
    """
    if source.quantized:
        quantized, identity = load_checkpoint(source.checkpoint)
        if source.model not in (None, quantized.name):
            raise BadInput(f"{source.checkpoint} is a checkpoint of {quantized.name}, not of {source.model}")
        return quantized, identity.sha256
    model = float_model(source)
    origin = fingerprint(source, model)
    if cache is not None and (cache / MANIFEST).is_file():
        try:
            quantized, identity = load_checkpoint(cache)
        except BadInput as error:
            note(f"{error}; quantizing again")
        else:
            if quantized.provenance.get("fingerprint") == origin:
                note(f"quantized already: {cache}")
                return quantized, identity.sha256
    images = calibration_images(source, model.name, model.input_shape, model.weights)
    batches = [images.images[i : i + CALIBRATION_BATCH] for i in range(0, len(images), CALIBRATION_BATCH)]
    quantized = quantize(
        model.module,
        batches,
        model.name,
        source.activation_range,
        source.weight_range,
        {"weights": model.weights, "calibration": images.name, "fingerprint": origin},
    )
    return quantized, save_checkpoint(quantized, cache) if cache is not None else None


def quantize_named(name: str) -> QuantizedModel:
    """A known network, kept beside artifacts once it is quantized, or the one in a quantized checkpoint's directory."""
    source = Source(checkpoint=name) if Path(name).is_dir() else Source(name)
    return quantize_source(source, checkpoint_place(source, ARTIFACTS))[0]


def main(argv: Sequence[str] | None) -> int:
    parser = Parser(
        "quantize", "Quantizes a trained model: folds batch norm, calibrates, keeps 4- and 8-bit parameters."
    )
    add_options(parser)
    parser.add_argument("--out", metavar="DIR", required=True, help="directory of the quantized checkpoint")
    options = parser.parse_args(argv)
    source = from_options(options)
    if source.quantized:
        raise BadInput(f"{source.checkpoint} is quantized already; give float weights")
    check_directory(options.out, MANIFEST, FORMAT)
    model, digest = quantize_source(source, Path(options.out))
    rows = [
        {"name": name, "shape": layer.weight.shape, **{f"error{bits}": weight_error(layer, bits) for bits in (4, 8)}}
        for name, layer in model.layers.items()
    ]
    summary = {
        "model": model.name,
        "checkpoint": options.out,
        "sha256": digest,
        "tied": model.graph.tied(),
        "fixed": model.graph.fixed(),
        "provenance": model.provenance,
    }
    if options.json:
        print_json(summary | {"layers": rows})
    else:
        cells = [[r["name"], "x".join(map(str, r["shape"])), f"{r['error4']:.4f}", f"{r['error8']:.4f}"] for r in rows]
        print(table(["layer", "weight", "error at 4 bits", "at 8 bits"], cells))
        print(f"\n{model.name} ({model.provenance['weights']}): checkpoint {options.out}, weights sha256 {digest[:12]}")
    return 0


if __name__ == "__main__":
    command(main)
