"""Reads and writes checkpoints of the known networks without executing anything that is in them."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn

from hawqtvm.errors import BadInput
from hawqtvm.files import write_atomic

SUFFIXES = (".safetensors", ".pt", ".pth")
NAMED = 3


def read(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors by name.

    A .pt or .pth may also hold them under "state_dict", and their names may start with "module." (as DataParallel
    leaves them); it is loaded with `weights_only=True`, so that code in it is refused.

    Raises:
        BadInput: missing, of another kind, truncated or corrupt, or holding anything but tensors.
    """
    if not path.is_file():
        raise BadInput(f"checkpoint {path} does not exist or is not a file: check the path")
    if path.suffix not in SUFFIXES:
        raise BadInput(f"checkpoint {path} is of an unknown kind: give one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise nearly anything
        reason = str(error).strip().splitlines()
        raise BadInput(
            f"checkpoint {path} cannot be read ({reason[0] if reason else type(error).__name__}): it is "
            "truncated, corrupt or holds more than tensors; save model.state_dict() again"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadInput(f"checkpoint {path} is not a state dict: save model.state_dict()")
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def fill(module: nn.Module, state: dict[str, torch.Tensor], path: Path, name: str) -> None:
    """Copy `state`, as float32, into `module`.

    Raises:
        BadInput: names or shapes that are not the module's, or values that are not finite numbers.
    """
    wanted = module.state_dict()
    # the batch counters matter only to training, and older checkpoints lack them
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    problems = {
        "missing": [key for key in wanted if key not in state and key not in counters],
        "unexpected": [key for key in state if key not in wanted],
        "wrong shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in wanted
            if key in state and key not in counters and state[key].shape != wanted[key].shape
        ],
    }
    found = "; ".join(f"{kind}: {_first(names)}" for kind, names in problems.items() if names)
    if found:
        raise BadInput(f"checkpoint {path} is not one of {name} ({found}): give a checkpoint of this network")
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise BadInput(f"checkpoint {path}: tensor {key} holds NaN or Inf; train or export the model again")
        if key.endswith("running_var") and (value < 0).any():
            raise BadInput(f"checkpoint {path}: tensor {key} holds a negative variance; export the model again")
    module.load_state_dict({**state, **{key: wanted[key] for key in counters}})


def write(module: nn.Module, path: Path) -> None:
    """Write a module's state dict as .safetensors; the file appears whole or not at all."""
    write_atomic(path, save({key: value.contiguous() for key, value in module.state_dict().items()}))


def _first(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
