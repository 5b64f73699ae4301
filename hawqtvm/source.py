"""What a command names: a model, a checkpoint, images; and the options that name them."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hawqtvm.console import Parser
from hawqtvm.data import Images, load_images
from hawqtvm.errors import BadInput
from hawqtvm.files import sha256_arrays, sha256_file
from hawqtvm.models import MODELS, RANDOM, TRAINED, LoadedModel, load_model, load_module
from hawqtvm.qnn.model import QuantizedModel
from hawqtvm.qnn.quantizers import METHODS

DEFAULT_MODEL = "digits"
CALIBRATION_IMAGES = 256
SPEED_ONLY_IMAGES = 8


@dataclass(frozen=True)
class Source:
    """``model``: a known name or ``module:callable``.  ``checkpoint``: float weights (a file) or a quantized checkpoint
    (a directory).  ``data``: what :func:`hawqtvm.data.load_images` takes.  ``input_dims``: (C, H, W) of a user's model.
    """

    model: str | None = None
    checkpoint: str | None = None
    data: str | None = None
    input_dims: tuple[int, int, int] | None = None
    limit: int = CALIBRATION_IMAGES
    activation_range: str = "mse"
    weight_range: str = "mse"

    @property
    def quantized(self) -> bool:
        """Whether the checkpoint is a quantized one."""
        return self.checkpoint is not None and Path(self.checkpoint).is_dir()


def add_options(parser: Parser) -> None:
    """The options that make a :class:`Source`."""
    parser.add_argument(
        "--model", help=f"{', '.join(MODELS)}, or your own as module:callable (default: {DEFAULT_MODEL})"
    )
    parser.add_argument(
        "--checkpoint",
        help="float weights (.safetensors, .pt, .pth), or a quantized checkpoint's directory (default: a model's own "
        "weights, or random ones that are good for speed only)",
    )
    parser.add_argument(
        "--data",
        help="images to calibrate on, and to measure accuracy on where labelled: digits, random, a .npz, or a folder "
        "(one subfolder a class)",
    )
    parser.add_argument("--input", metavar="C,H,W", help="input shape of a model of your own, as 3,224,224")
    parser.add_argument(
        "--calibration-images",
        metavar="N",
        type=int,
        default=CALIBRATION_IMAGES,
        help="calibrate on at most so many (default: %(default)s)",
    )
    parser.add_argument(
        "--activation-range", choices=METHODS, default="mse", help="how activations get a range (default: %(default)s)"
    )
    parser.add_argument(
        "--weight-range", choices=METHODS, default="mse", help="how weights get a range (default: %(default)s)"
    )


def from_options(options) -> Source:
    dims = None
    if options.input:
        parts = options.input.split(",")
        if len(parts) != 3 or not all(p.isdecimal() and int(p) for p in parts):
            raise BadInput(f"--input {options.input}: give channels, height and width, as 3,224,224")
        dims = tuple(int(p) for p in parts)
        if options.model and ":" not in options.model:
            raise BadInput(f"--input is for a model of your own (module:callable), not for {options.model}: omit it")
    if options.calibration_images < 1:
        raise BadInput(f"--calibration-images {options.calibration_images}: give a number, 1 or more")
    return Source(
        options.model,
        options.checkpoint,
        options.data,
        dims,
        options.calibration_images,
        options.activation_range,
        options.weight_range,
    )


def float_model(source: Source) -> LoadedModel:
    """The float module a source names.  Raises BadInput when it cannot be made."""
    name = source.model or DEFAULT_MODEL
    if ":" not in name:
        return load_model(name, source.checkpoint)
    if source.input_dims is None:
        raise BadInput(f"--input C,H,W is needed for a model of your own ({name})")
    module = load_module(name)
    if source.checkpoint is not None:
        from hawqtvm.models import checkpoint as files

        path = Path(source.checkpoint)
        files.fill(module, files.read(path), path, name)
    return LoadedModel(name, module, source.input_dims, TRAINED)


def calibration_images(source: Source, name: str, input_dims: tuple[int, int, int], weights: str) -> Images:
    """The images to calibrate a model on: the digits' training split, the user's, or noise for random weights."""
    if source.data:
        return load_images(source.data, input_dims, source.limit, split="train")
    if name == DEFAULT_MODEL:
        return load_images("digits", input_dims, source.limit, split="train")
    if weights == RANDOM:
        return load_images("random", input_dims, SPEED_ONLY_IMAGES)
    raise BadInput(f"--data is needed to calibrate {name}: a folder of images or a .npz")


def fingerprint(source: Source, model: LoadedModel) -> str:
    """A hash of everything the quantized checkpoint depends on but hawqtvm itself."""
    from hawqtvm.frontend.trace import trace

    weights = {k: v.numpy() for k, v in model.module.state_dict().items()}
    digest = hashlib.sha256(sha256_arrays(weights).encode())
    data = source.data or ""
    # the same weights may stand in another network
    steps = [asdict(step) for step in trace(model.module, model.input_shape)[0]]
    options = [source.limit, source.activation_range, source.weight_range]
    described = [model.name, model.input_shape, steps, data, *options]
    digest.update(json.dumps(described).encode())
    path = Path(data)
    if data and path.is_file():
        digest.update(sha256_file(path).encode())
    elif data and path.is_dir():
        entries = sorted((str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in path.rglob("*"))
        digest.update(json.dumps(entries).encode())
    return digest.hexdigest()


def labelled_images(source: Source, quantized: QuantizedModel) -> Images | None:
    """Images with labels to measure accuracy on: the digits' test split or the user's; None where there are none."""
    data = source.data or (DEFAULT_MODEL if quantized.name == DEFAULT_MODEL else None)
    if data is None or quantized.provenance.get("weights") == RANDOM:
        return None
    images = load_images(data, quantized.graph.input_dims, split="test")
    return images if images.labels is not None else None


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose largest logit is their label's, in percent."""
    return 100.0 * float((logits.reshape(len(labels), -1).argmax(1) == labels).mean())
