"""One round of a report's measurement: ``python -m hawqtvm.runtime.turns``, a job as JSON on stdin, times on stdout.

``{"groups": [[artifact, ...], ...], "threads": int or null, "turns": int, "seed": int}`` ->
``{"yardstick": [us], "times": [[{"us": [[us]], "layers": {layer: [[us]]}}, ...], ...]}`` in the groups' order, a list
a turn.  Artifacts of one group are compared: they take equal numbers of calls, one right after the other.
"""

import hashlib
import json
import os
import random
import sys
from time import perf_counter

import numpy as np

from hawqtvm.console import command
from hawqtvm.runtime.model import Model, load

TURN_S = 0.005
CALLS = (4, 40)
YARDSTICK = bytes(2**18)


def yardstick_us() -> float:
    """A fixed computation: how fast the core runs now."""
    times = []
    for _ in range(3):
        started = perf_counter()
        hashlib.sha256(YARDSTICK).digest()
        times.append(1e6 * (perf_counter() - started))
    return round(min(times), 3)


def calls_in_turn(group: list[Model]) -> int:
    least, most = CALLS
    return max(least, min(most, round(TURN_S / min(min(model.measure(3, 1)) for model in group))))


def take_round(groups: list[list[str]], threads: int | None, turns: int, seed: int) -> dict:
    shuffle = random.Random(seed)
    places = [(group, index) for group, paths in enumerate(groups) for index in range(len(paths))]
    # what is loaded first lies elsewhere in memory
    models = {place: load(groups[place[0]][place[1]], threads) for place in shuffle.sample(places, len(places))}
    codes = {
        place: np.random.default_rng(0).integers(0, 256, model.input_shape, np.uint8) for place, model in models.items()
    }
    members = [[place for place in places if place[0] == group] for group in range(len(groups))]
    calls = [calls_in_turn([models[place] for place in group]) for group in members]
    times = [[{"us": [], "layers": {}} for _ in paths] for paths in groups]
    yardstick = []
    for _ in range(turns):
        yardstick.append(yardstick_us())
        for group in shuffle.sample(range(len(groups)), len(groups)):
            for place in shuffle.sample(members[group], len(members[group])):
                times[group][place[1]]["us"].append(_us(models[place].measure(calls[group], warmup=1)))
            for place in shuffle.sample(members[group], len(members[group])):
                layers = times[group][place[1]]["layers"]
                for layer, seconds in models[place].profile(codes[place], calls[group]).items():
                    layers.setdefault(layer, []).append(_us(seconds))
    return {"yardstick": yardstick, "times": times}


def _us(seconds: list[float]) -> list[float]:
    return [round(1e6 * value, 3) for value in seconds]


def main(_: None) -> int:
    # libraries print to stdout as they like: the answer has it for itself
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(take_round(**json.load(sys.stdin)), answer)
    answer.close()
    return 0


if __name__ == "__main__":
    command(main)
