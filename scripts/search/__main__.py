"""How soon searches find the best config: every config of some layers measured, then searches replayed on the times.

Writes ``search.json`` and ``search.svg`` beside the log of the measurements, which a later run goes on from.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from hawqtvm.console import Progress, command, table
from hawqtvm.files import write_atomic
from hawqtvm.qnn.formats import Format
from hawqtvm.runtime import threads as cpu_threads
from hawqtvm.tune.bench import Bench
from hawqtvm.tune.candidates import Race, Space, candidate_space, merged
from hawqtvm.tune.devices import Local
from hawqtvm.tune.search import BATCH
from hawqtvm.tune.trials import Trials
from schedules.target import find_target
from schedules.tuning_log import log_path
from schedules.workload import Conv2d, Epilogue
from scripts.search.plot import plot
from scripts.search.replay import STRATEGIES, curves


def layer(bits: int, channels: int, size: int, out_channels: int, kernel: int, stride: int = 1) -> Conv2d:
    """A convolution of one image, its codes of as many bits as its weights."""
    code, pad = f"uint{bits}", kernel // 2
    epilogue = Epilogue(Format(code), 0, 0, 2**bits - 1, 34)
    shape = (1, channels, size, size, out_channels, (kernel, kernel), (stride, stride), (pad,) * 4, (1, 1), 1)
    return Conv2d(*shape, Format(code), 0, bits, epilogue, headroom=2)  # trained weights leave more, Winograd needs it


# {name: layer, threads}: three of ResNet-50, and two of those of which the tuning logs show the worst estimates
LAYERS = {
    "3x3 64->64 at 56x56, 4 bits": (layer(4, 64, 56, 64, 3), 1),
    "3x3 256->256 at 14x14, 4 bits": (layer(4, 256, 14, 256, 3), 1),
    "1x1 1024->256 at 14x14, 4 bits": (layer(4, 1024, 14, 256, 1), 1),
    "1x1 256->64 at 56x56, 4 bits, 2 threads": (layer(4, 256, 56, 64, 1), 2),
    "3x3/2 64->64 at 4x4, 4 bits, 2 threads": (layer(4, 64, 4, 64, 3, 2), 2),
}


def main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench_search", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="searches of each kind (default: %(default)s)")
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("artifacts/search"), help="folder (default: %(default)s)")
    options = parser.parse_args(argv)
    target, found = find_target(), {}
    for name in options.layers:
        workload, threads = LAYERS[name]
        devices = Local(cpu_threads.choose(threads, threads))
        device = devices.machine.device
        log = Trials(log_path(options.out, device, target.name, threads), target, threads, device)
        space = candidate_space(workload, target, threads)
        with Bench(target, devices) as bench:
            scores = exhaustive(log, workload, space, bench, name)
        found[name] = {"configs": len(space.choices), "threads": threads, **curves(space, scores, options.seeds)}
    about = {"device": vars(device), "target": target.name, "seeds": options.seeds}
    write_atomic(options.out / "search.json", json.dumps(about | {"layers": found}).encode())
    plot(found, options.out / "search.svg")
    print(show(found))
    return 0


def exhaustive(log: Trials, workload, space: Space, bench: Bench, name: str) -> Race:
    """The scores of all configs, in races with the best of those before; what the log has is not measured again."""
    known = merged(log.races(workload, space))
    left = [index for index in range(len(space.choices)) if index not in known]
    with Progress(f"races of {name}", -(-len(left) // BATCH)) as progress:
        for first in range(0, len(left), BATCH):
            log.race(workload, [space.choices[index] for index in left[first : first + BATCH]], bench.measure)
            progress()
    return merged(log.races(workload, space))


def show(found: dict) -> str:
    """Times the best config's time that each search has after 8, 16 and 24 trials, and the trials it made."""
    rows = []
    for name, layer in found.items():
        for strategy in STRATEGIES:
            curve = layer[strategy]
            at = [f"{curve['mean'][min(trials, len(curve['mean'])) - 1]:.3f}" for trials in (8, 16, 24)]
            rows.append([name, layer["configs"], strategy, *at, f"{curve['trials']:.1f}"])
    return table(["layer", "configs", "search", "after 8", "after 16", "after 24", "trials"], rows)


if __name__ == "__main__":
    command(main)
