#!/usr/bin/env python
"""How well the sensitivity methods rank layers and predict plans, on networks trained on the digits; prints markdown.

Two networks: the embedded residual one, and one of depthwise separable convolutions that is trained here (seeded, not
stored).  Sensitivities come from training images.  A row holds, over the network's free groups of layers, the rank
correlation of a method with the measured loss on the same images; and over random plans, with any number or with half
of the groups at 4 bits, Spearman's of its values' sum (and of measured pairs) with the loss increase on test images.

    python scripts/rank_sensitivity.py [--samples N] [--plans N]
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.stats import kendalltau, spearmanr
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from hawqtvm.console import command  # noqa: E402
from hawqtvm.data import Images, load_images  # noqa: E402
from hawqtvm.models import load_model  # noqa: E402
from hawqtvm.qnn.model import QuantizedModel  # noqa: E402
from hawqtvm.quantize import quantize  # noqa: E402
from hawqtvm.sensitivity import METHODS, Sensitivity, sensitivity  # noqa: E402
from hawqtvm.sensitivity.groups import Group, free_groups  # noqa: E402
from hawqtvm.sensitivity.loss import plan_losses  # noqa: E402
from hawqtvm.sensitivity.objective import Objective  # noqa: E402
from scripts.train_digits import train  # noqa: E402

DIMS = (1, 8, 8)
EPOCHS, SEED = 15, 1
WIDTHS = ((24, 48, 2), (48, 48, 1), (48, 96, 2), (96, 96, 1), (96, 96, 1))  # in, out, stride of the separable blocks


def separable() -> nn.Module:
    """(N, 1, 8, 8) -> (N, 10), with ReLU6, as MobileNet is built; eleven convolutions."""

    def norm(*conv, **options) -> list[nn.Module]:
        return [nn.Conv2d(*conv, bias=False, **options), nn.BatchNorm2d(conv[1]), nn.ReLU6()]

    blocks = [norm(1, 24, 3, 1, 1)]
    for inputs, outputs, stride in WIDTHS:
        blocks += [norm(inputs, inputs, 3, stride, 1, groups=inputs), norm(inputs, outputs, 1)]
    layers = [layer for block in blocks for layer in block]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))


@dataclass(frozen=True)
class Plans:
    """Random plans, each its groups at 4 bits, and the loss increase over 8 bits that each was measured to make."""

    at4: list[list[Group]]
    increase: np.ndarray


def random_plans(free: list[Group], count: int, some: bool) -> list[list[Group]]:
    """``count`` plans, all with half of the groups at 4 bits, or ``some``: with any number of them."""
    rng = np.random.default_rng(SEED)
    sizes = rng.integers(1, len(free), count, endpoint=True) if some else [len(free) // 2] * count
    return [[free[i] for i in rng.permutation(len(free))[:size]] for size in sizes]


def measured(objective: Objective, at4: list[list[Group]]) -> Plans:
    losses = [plan_losses(objective, [name for group in plan for name in group]).mean() for plan in [[], *at4]]
    return Plans(at4, np.array(losses[1:]) - losses[0])


def values(found: Sensitivity, groups: list[Group]) -> np.ndarray:
    """Each group's loss increase from 8 to 4 bits."""
    return np.array([sum(found.layers[n]["4"] - found.layers[n]["8"] for n in group) for group in groups])


def predicted(found: Sensitivity, plan: list[Group], pairs: bool) -> float:
    total, first = values(found, plan).sum(), {group[0] for group in plan}
    return total + pairs * sum(p["value"] for p in found.pairs if first >= set(p["layers"]))


def rows(name: str, model: QuantizedModel, images: Images, test: Images, count: int, out: Path) -> Iterator[list]:
    free = free_groups(model.graph)
    for labels in (False, True):
        unseen = Objective(model, test, labels, SEED)
        truths = [measured(unseen, random_plans(free, count, some)) for some in (True, False)]
        found = {m: sensitivity(model, images, m, labels=labels, pairs=True, out=out) for m in METHODS}
        oracle = values(found["loss"], free)
        for method, result in found.items():
            own, cells = values(result, free), []
            for truth in truths:
                for pairs in (False, True):
                    sums = [predicted(result, plan, pairs) for plan in truth.at4]
                    cells.append(spearmanr(sums, truth.increase).statistic)
            ranks = [spearmanr(own, oracle).statistic, kendalltau(own, oracle).statistic]
            yield [f"{name} ({len(free)})", "labels" if labels else "output", method, *ranks, *cells]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=256, help="training images (default: %(default)s)")
    parser.add_argument("--plans", type=int, default=100, help="random plans (default: %(default)s)")
    options = parser.parse_args()
    images, test = (load_images("digits", DIMS, n, s) for n, s in ((options.samples, "train"), (None, "test")))
    modules = {"digits": load_model("digits").module, "separable": train(EPOCHS, SEED, build=separable)}
    headers = ["network (groups)", "loss", "method", "Spearman", "Kendall"]
    headers += [f"plans, {truth}{pairs}" for truth in ("any size", "one size") for pairs in ("", " + pairs")]
    print("| " + " | ".join(headers) + " |")
    print("|---|---|---|" + "---:|" * (len(headers) - 3))
    for name, module in modules.items():
        model = quantize(module, np.array_split(images.images, 8), name)
        with TemporaryDirectory() as kept:
            for row in rows(name, model, images, test, options.plans, Path(kept) / "sensitivity.json"):
                cells = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row]
                print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    command(lambda _: main())
