"""A quantized model on disk: ``checkpoint.json`` (graph, ranges, provenance) and ``weights.safetensors``.

Both are data: loading executes nothing.  4-bit weights are stored packed, eight in an int32.  The manifest holds the
hash of the weights file, whose metadata hold the hash of the manifest's graph and ranges: that one sha256 stands for
the whole checkpoint.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hawqtvm.errors import BadInput
from hawqtvm.files import atomic_directory, read_json, sha256_file
from hawqtvm.qnn.formats import LIMITS
from hawqtvm.qnn.graph import Graph
from hawqtvm.qnn.model import LayerWeights, QuantizedModel
from hawqtvm.qnn.packing import pack_words, unpack_words

FORMAT, VERSION = "hawqtvm-checkpoint", 1
MANIFEST, WEIGHTS = "checkpoint.json", "weights.safetensors"


@dataclass(frozen=True)
class Identity:
    """What a plan or an artifact says of the checkpoint it belongs to."""

    model: str
    sha256: str


def unpack_flat(words: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return unpack_words(words, 0, signed=True)[: int(np.prod(shape))].reshape(shape)


def check_complete(model: QuantizedModel) -> None:
    """ValueError that names the layer or tensor whose arrays or ranges are not those of the graph."""
    graph = model.graph
    for step in graph.layers:
        layer = model.layers[step.name]
        kernel = step.kernel if step.op == "conv2d" else ()
        shape = (step.dims[0], graph.dims(step.inputs[0])[0] // step.groups, *kernel)
        whole = all(a.shape == shape for a in (layer.weight, *layer.codes.values()))
        if not whole or any(a.shape != shape[:1] for a in (layer.bias, *layer.scales.values())):
            raise ValueError(f"layer {step.name} has arrays of another shape")
    for tensor in graph.tensors.values():
        ranges = model.ranges.get(tensor.ranges, {})
        if tensor.kind != "accumulator" and not all(ranges.get(c, (0, 0))[0] > 0 for c in LIMITS):
            raise ValueError(f"tensor {tensor.ranges} has no ranges")
    if model.samples.shape[1:] != graph.input_dims:
        raise ValueError("its sample images have another shape")


def save_checkpoint(model: QuantizedModel, path: str | Path) -> str:
    """Writes the directory ``path`` (whole or not at all) and returns the weights file's sha256."""
    with atomic_directory(path, MANIFEST, FORMAT) as directory:
        return write_checkpoint(model, directory)


def described_sha256(model: str, graph: dict, ranges: dict) -> str:
    """The sha256 of the manifest's parts that the arithmetic depends on."""
    return hashlib.sha256(json.dumps([model, graph, ranges], sort_keys=True).encode()).hexdigest()


def weights_bytes(model: QuantizedModel) -> bytes:
    """The content of the weights file, the same whenever the model is."""
    from safetensors.numpy import save

    tensors = {"samples": model.samples}
    for name, layer in model.layers.items():
        tensors |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
        tensors |= {f"{name}.scale{bits}": scale for bits, scale in layer.scales.items()}
        tensors |= {f"{name}.codes8": layer.codes[8], f"{name}.codes4": pack_words(layer.codes[4].reshape(-1), 0)}
    described = described_sha256(model.name, model.graph.to_json(), model.ranges)
    return save({k: np.ascontiguousarray(v) for k, v in tensors.items()}, {"described_sha256": described})


def weights_sha256(model: QuantizedModel) -> str:
    """The sha256 that the weights file of a model has, or would have."""
    return hashlib.sha256(weights_bytes(model)).hexdigest()


def write_checkpoint(model: QuantizedModel, directory: Path) -> str:
    """Writes the two files into an existing directory and returns the weights file's sha256."""
    weights = weights_bytes(model)
    (directory / WEIGHTS).write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "model": model.name,
        "weights_sha256": digest,
        "graph": model.graph.to_json(),
        "ranges": model.ranges,
        "provenance": model.provenance,
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return digest


def load_checkpoint(path: str | Path) -> tuple[QuantizedModel, Identity]:
    """Reads what :func:`save_checkpoint` wrote.

    Raises BadInput, naming the file: missing, truncated or damaged, of another kind or a newer version.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    manifest = read_json(path / MANIFEST, FORMAT, VERSION)
    weights = path / WEIGHTS
    if not weights.is_file():
        raise BadInput(f"{weights} is missing; quantize the model again")
    digest = sha256_file(weights)
    if digest != manifest.get("weights_sha256"):
        raise BadInput(
            f"{weights} is damaged or truncated (its hash is not the one in {MANIFEST}); quantize the model again"
        )
    try:
        with safe_open(weights, "numpy") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            described = (file.metadata() or {}).get("described_sha256")
        graph = Graph.from_json(manifest["graph"])
        layers = {}
        for step in graph.layers:
            stored = {
                key: tensors[f"{step.name}.{key}"] for key in ("weight", "bias", "codes8", "codes4", "scale4", "scale8")
            }
            codes = {8: stored["codes8"], 4: unpack_flat(stored["codes4"], stored["weight"].shape)}
            layers[step.name] = LayerWeights(
                stored["weight"], stored["bias"], codes, {4: stored["scale4"], 8: stored["scale8"]}
            )
        ranges = {
            t: {code: (float(s), int(z)) for code, (s, z) in codes.items()} for t, codes in manifest["ranges"].items()
        }
        provenance = dict(manifest["provenance"])
        model = QuantizedModel(manifest["model"], graph, layers, ranges, tensors["samples"], provenance)
        check_complete(model)
        if described != described_sha256(manifest["model"], manifest["graph"], manifest["ranges"]):
            raise ValueError(f"{MANIFEST} was changed")
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, SafetensorError) as error:
        raise BadInput(f"{path} is damaged ({error}); quantize the model again") from None
    return model, Identity(model.name, digest)
