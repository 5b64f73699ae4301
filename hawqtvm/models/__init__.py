"""The networks that hawqtvm knows by name, and their checkpoints.

torch is imported when a model is built, not when this package is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hawqtvm.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

DIGITS_CHECKPOINT = Path(__file__).with_name("digits.safetensors")
TRAINED = "trained"
RANDOM = "random weights: speed only"


@dataclass(frozen=True)
class ModelSpec:
    """A network in the table.

    Attributes:
        build: the number of classes -> a freshly initialised module.
        input_shape: (C, H, W) of its usual input.
        classes: its usual number of logits.
        embedded: the checkpoint that comes with the package, if one does.
    """

    build: Callable[[int], "nn.Module"]
    input_shape: tuple[int, int, int]
    classes: int
    embedded: Path | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A network ready to be quantized: `module` is float32 and in eval mode; `weights` is TRAINED or RANDOM."""

    name: str
    module: "nn.Module"
    input_shape: tuple[int, int, int]
    weights: str


def _digits(classes: int) -> "nn.Module":
    from hawqtvm.models.digits import DigitsResNet

    return DigitsResNet(classes)


def _resnet18(classes: int) -> "nn.Module":
    from hawqtvm.models.resnet import resnet18

    return resnet18(classes)


def _resnet50(classes: int) -> "nn.Module":
    from hawqtvm.models.resnet import resnet50

    return resnet50(classes)


MODELS: dict[str, ModelSpec] = {
    "digits": ModelSpec(_digits, (1, 8, 8), 10, DIGITS_CHECKPOINT),
    "resnet18": ModelSpec(_resnet18, (3, 224, 224), 1000),
    "resnet50": ModelSpec(_resnet50, (3, 224, 224), 1000),
}


def load_module(path: str) -> "nn.Module":
    """A module of the user's own: ``package.module:callable``, called without arguments; BadInput if that fails."""
    import importlib
    import sys

    from torch import nn

    where, _, what = path.partition(":")
    # as python -c and -m do for the user's own code
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = getattr(importlib.import_module(where), what)()
    except Exception as error:
        raise BadInput(
            f"model {path!r} cannot be made ({type(error).__name__}: {error}): give module:callable"
        ) from error
    if not isinstance(module, nn.Module):
        raise BadInput(f"model {path!r} is a {type(module).__name__}, not a torch.nn.Module")
    return module.eval()


def load_model(name: str, checkpoint: str | Path | None = None) -> LoadedModel:
    """Build a known network and fill in its weights.

    Args:
        name: a key of MODELS.
        checkpoint: a .safetensors, .pt or .pth file with torchvision's names for the tensors; the number of classes is
            the checkpoint's. Without it, "digits" takes its embedded weights, and the ResNets take random ones (always
            the same) that are good for measuring speed and nothing else.

    Raises:
        BadInput: no such model; or the checkpoint is missing, corrupt, holds code, or is not this network's.
    """
    if name not in MODELS:
        raise BadInput(
            f"model '{name}' is unknown: choose one of {', '.join(MODELS)}, or name your own as module:callable"
        )
    from hawqtvm.models import checkpoint as files

    spec = MODELS[name]
    path = spec.embedded if checkpoint is None else Path(checkpoint)
    if path is None:
        from hawqtvm.models.random_weights import fill

        return LoadedModel(name, fill(spec.build(spec.classes), spec.input_shape[0]), spec.input_shape, RANDOM)
    state = files.read(path)
    head = state.get("fc.bias")
    classes = len(head) if head is not None and head.ndim == 1 and len(head) else spec.classes
    module = spec.build(classes)
    files.fill(module, state, path, name)
    return LoadedModel(name, module.eval(), spec.input_shape, TRAINED)
