"""What 6-bit activations would cost: 4-bit weights with codes in bytes, as W4A6 must hold them, against packed nibbles.

The kernels' time does not depend on the codes' values, so W4A6 is timed as uint4 codes in bytes: the transforms of
:mod:`schedules.cpu.winograd` take codes up to 63 with no instruction more.  Interleaved, one thread, warm; the first
column is the best of the rounds.

    python scripts/bench_w4a6.py [--rounds N]
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

from hawqtvm.qnn.formats import Format  # noqa: E402
from hawqtvm.runtime.threads import run_with  # noqa: E402
from hawqtvm.tune.kernel import compiled  # noqa: E402
from schedules.dispatch import choose  # noqa: E402
from schedules.target import find_target  # noqa: E402
from schedules.workload import Conv2d, Epilogue  # noqa: E402

# channels, outputs, size, kernel, stride: of ResNet-18 and ResNet-50
LAYERS = (
    (64, 64, 56, 3, 1),
    (128, 128, 28, 3, 1),
    (256, 256, 14, 3, 1),
    (512, 512, 7, 3, 1),
    (128, 128, 56, 3, 2),
    (256, 64, 56, 1, 1),
    (64, 256, 56, 1, 1),
    (1024, 256, 14, 1, 1),
    (512, 2048, 7, 1, 1),
)


def layer(channels: int, outputs: int, size: int, kernel: int, stride: int, packed: bool, batch: int) -> Conv2d:
    codes = Format("uint4", "NCHW16c", packed)
    padding = (kernel // 2,) * 4
    epilogue = Epilogue(codes, 0, 0, 15, 34)
    window, steps = (kernel, kernel), (stride, stride)
    return Conv2d(batch, channels, size, size, outputs, window, steps, padding, (1, 1), 1, codes, 0, 4, epilogue, 2)


def interleaved(runs: list[Callable[[], None]], rounds: int) -> list[list[float]]:
    """Microseconds of each function, one a round."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(rounds):
        for samples, run in zip(times, runs, strict=True):
            started = perf_counter()
            run()
            samples.append(1e6 * (perf_counter() - started))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=60, help="turns of each kernel (default: %(default)s)")
    rounds = parser.parse_args().rounds
    target = find_target()
    print("| layer | batch | schedule | W4A4 us | W4A6 us | W4A6 / W4A4, median |\n|---|---:|---|---:|---:|---:|")
    for batch in (1, 8):
        for shape in LAYERS:
            workloads = [layer(*shape, packed=packed, batch=batch) for packed in (True, False)]
            choices = [choose(workload, target, 1) for workload in workloads]
            runs = [compiled(choice, target) for choice in choices]
            four, six = run_with(1, lambda runs=runs: interleaved(runs, rounds))
            ratio = median(b / a for a, b in zip(four, six, strict=True))
            channels, outputs, size, kernel, stride = shape
            name = f"{kernel}x{kernel}{f'/{stride}' if stride > 1 else ''} {size}x{size} {channels}->{outputs}"
            schedules = " / ".join(dict.fromkeys(choice.name for choice in choices))
            print(f"| {name} | {batch} | {schedules} | {min(four):.0f} | {min(six):.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
