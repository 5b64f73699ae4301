"""Stage 2: what each layer's quantization costs the network -> sensitivity.json, for allocate to weigh against time."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hawqtvm.errors import BadInput

if TYPE_CHECKING:
    from hawqtvm.data import Images
    from hawqtvm.qnn.model import QuantizedModel

VERSION = 1
METHODS = ("fisher", "hessian", "loss")
SAMPLES = 256
TOLERANCE = 0.1
PROBES = 500


@dataclass(frozen=True)
class Sensitivity:
    """Expected loss increase, in nats an image, of each layer at each of its bits, with standard errors.

    ``layers``, ``stderr``: {layer: {"4": ..., "8": ...}}; layers that stay at 8 bits have only that.  Layers that share
    their bits share their value equally, so that they add up to it.  ``pairs``: what two layers (each the first of its
    group) at 4 bits cost beyond their sum; None if not asked for.  ``labels``: whether the loss is cross-entropy with
    labels, else the divergence from the float model's output.
    """

    model: str
    checkpoint: str
    method: str
    labels: bool
    data: dict
    layers: dict[str, dict[str, float]]
    stderr: dict[str, dict[str, float]]
    pairs: list[dict] | None = None
    provenance: dict = field(default_factory=dict)

    def to_json(self) -> dict:
        found = {"version": VERSION} | asdict(self)
        return found if self.pairs is not None else {k: v for k, v in found.items() if k != "pairs"}


def sensitivity(
    quantized: "QuantizedModel",
    images: "Images",
    method: str = METHODS[0],
    *,
    labels: bool = False,
    pairs: bool = False,
    tolerance: float = TOLERANCE,
    probes: int = PROBES,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    checkpoint_sha256: str | None = None,
) -> Sensitivity:
    """Estimates or measures the loss increase of each layer at 4 and at 8 bits, on images such as calibrated it.

    ``method``: "fisher" (:mod:`hawqtvm.sensitivity.fisher`: weights and activations, one pass), "hessian"
    (:mod:`hawqtvm.sensitivity.hessian`: weights only, as HAWQ) or "loss" (:mod:`hawqtvm.sensitivity.loss`: measured,
    one run a layer).  ``labels``: the loss is cross-entropy with the images' labels, else divergence from the float
    model's own output.  ``pairs``: also measure each two layers of a block together, a run a pair.  ``tolerance``,
    ``probes``: the relative standard error at which "hessian" stops, and its most probes.  ``out``: the file to write;
    every measurement is kept in a ``.log`` beside it, from which the same call, stopped before, continues.
    Raises BadInput: images that do not fit, an unknown method, a place that cannot be written.
    """
    import torch

    from hawqtvm.calibrate import checked_batch
    from hawqtvm.checkpoint import weights_sha256
    from hawqtvm.files import check_appendable, sha256_arrays, write_atomic
    from hawqtvm.sensitivity import fisher, hessian, loss
    from hawqtvm.sensitivity.log import Log
    from hawqtvm.sensitivity.objective import Objective

    check_options(method, tolerance, probes, seed)
    if out is not None:
        check_appendable(out)
        check_appendable(log_path(out))
    checked_batch(images.images, quantized.graph.input_dims)
    if labels and images.labels is None:
        raise BadInput(f"{images.name} has no labels: leave out --labels, or give images with labels")
    digest = checkpoint_sha256 or weights_sha256(quantized)
    arrays = {"images": images.images} | ({"labels": images.labels} if labels else {})
    data = {"name": images.name, "split": images.split, "images": len(images), "sha256": sha256_arrays(arrays)}
    key = hashlib.sha256(json.dumps([VERSION, digest, data["sha256"], seed]).encode()).hexdigest()
    log = Log(out and log_path(out), key)
    objective = Objective(quantized, images, labels, seed)
    if method == "hessian":
        found = hessian.measure(objective, log, tolerance, probes)
    else:
        found = (fisher if method == "fisher" else loss).measure(objective, log)
    together = None
    if pairs:
        measured = loss.measure_pairs(objective, log)
        together = [{"layers": [first[0], second[0]], "value": value} for first, second, value in measured]
    provenance = {
        "weights": quantized.provenance.get("weights"),
        "seed": seed,
        "tied": quantized.graph.tied(),
        "torch": torch.__version__,
        **found.notes,
    }
    result = Sensitivity(quantized.name, digest, method, labels, data, found.layers, found.stderr, together, provenance)
    if out is not None:
        write_atomic(out, json.dumps(result.to_json(), indent=1) + "\n")
    return result


def log_path(out: str | os.PathLike) -> Path:
    """Where the measurements behind a result are kept."""
    return Path(f"{out}.log")


def check_options(method: str, tolerance: float, probes: int, seed: int) -> None:
    """BadInput for values that make no sense."""
    if method not in METHODS:
        raise BadInput(f"method {method!r}: choose {', '.join(METHODS)}")
    if not tolerance > 0:
        raise BadInput(f"tolerance {tolerance!r}: give a relative standard error above 0, as 0.1")
    if type(probes) is not int or probes < 2:
        raise BadInput(f"probes {probes!r}: give a whole number, 2 or more")
    if type(seed) is not int or seed < 0:
        raise BadInput(f"seed {seed!r}: give a whole number, 0 or more")
