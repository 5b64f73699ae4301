"""A quantized model on disk: ``checkpoint.json`` (graph, ranges, provenance) and ``weights.safetensors``.

Both are data: loading executes nothing.  4-bit weights are stored packed, eight in an int32.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hawqtvm.errors import BadInput
from hawqtvm.files import atomic_directory, read_json, sha256_file
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


def save_checkpoint(model: QuantizedModel, path: str | Path) -> str:
    """Writes the directory ``path`` (whole or not at all) and returns the weights file's sha256."""
    with atomic_directory(path) as directory:
        return write_checkpoint(model, directory)


def write_checkpoint(model: QuantizedModel, directory: Path) -> str:
    """Writes the two files into an existing directory and returns the weights file's sha256."""
    from safetensors.numpy import save_file

    tensors = {"samples": model.samples}
    for name, layer in model.layers.items():
        tensors |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
        tensors |= {f"{name}.scale{bits}": scale for bits, scale in layer.scales.items()}
        tensors |= {f"{name}.codes8": layer.codes[8], f"{name}.codes4": pack_words(layer.codes[4].reshape(-1), 0)}
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, directory / WEIGHTS)
    digest = sha256_file(directory / WEIGHTS)
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
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

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
        tensors = load_file(weights)
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
        model = QuantizedModel(manifest["model"], graph, layers, ranges, tensors["samples"], manifest["provenance"])
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        raise BadInput(f"{path} is damaged ({error}); quantize the model again") from None
    return model, Identity(model.name, digest)
