"""Interleaved rounds over several artifacts: the machine's peak, each layer in place, the whole network."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep

import numpy as np

from hawqtvm.errors import BadInput
from hawqtvm.runtime import Model, load
from scripts.layers.callbacks import callback_times, copying_model
from scripts.layers.peak import compile_peak

# idle threads spin for a while: let them go to sleep before the next artifact's turn
PAUSE_S = 0.1
PEAK_RUNS = 15
TURN_S = 0.3
COUNT_LIMITS = (3, 50)


def measure(paths: list[Path], rounds: int, say: Callable[[str], None]) -> dict:
    """Take turns: peak, artifact, artifact, ..., peak, ...

    Returns:
        {"peak": rounds of MAC/s of one thread, "callbacks": rounds of an empty layer's times, "artifacts": [{"path",
        "manifest", "threads", "runs": rounds from input codes to logits, "layers": {layer: rounds}}]}, where rounds are
        [[sample, ...], ...], one list a round, and times are microseconds.

    Raises:
        BadInput: an artifact is damaged, of an older version, or cannot run here.
    """
    models = [load(path) for path in paths]
    for path, model in zip(paths, models, strict=True):
        if any("geometry" not in row for row in model.manifest["layers"]):
            raise BadInput(f"{path} does not say its layers' shapes, as older versions did not: deploy it again")
    peak_run, peaks, callbacks = compile_peak(), [], []
    with TemporaryDirectory() as place:
        copying = copying_model(Path(place))
    turns = [_Turns(model) for model in models]
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        peaks.append([peak_run() for _ in range(PEAK_RUNS)])
        callbacks.append(_us(callback_times(copying)))
        for turn in turns:
            sleep(PAUSE_S)
            turn.take()
    artifacts = [
        {"path": str(path), "manifest": turn.model.manifest, "threads": turn.model.threads, **turn.found}
        for path, turn in zip(paths, turns, strict=True)
    ]
    return {"peak": peaks, "callbacks": callbacks, "artifacts": artifacts}


class _Turns:
    """One artifact's rounds."""

    def __init__(self, model: Model):
        self.model = model
        self.codes = np.random.default_rng(0).integers(0, 256, model.input_shape, "uint8")
        least, most = COUNT_LIMITS
        self.count = max(least, min(most, round(TURN_S / min(model.measure(repeats=2, warmup=1)))))
        self.found = {"runs": [], "layers": {row["name"]: [] for row in model.manifest["layers"]}}

    def take(self) -> None:
        """One round, of about twice TURN_S."""
        self.found["runs"].append(_us(self.model.measure(self.count, warmup=1)))
        for layer, seconds in self.model.profile(self.codes, self.count).items():
            self.found["layers"][layer].append(_us(seconds))


def _us(seconds: list[float]) -> list[float]:
    return [1e6 * value for value in seconds]
