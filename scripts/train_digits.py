#!/usr/bin/env python
"""Trains the digits network and writes the checkpoint that the package embeds.

Split: stratified 80/20, fixed seed (`hawqtvm.data.digits_split`). Input: pixels / 16. Augmentation: every image moves
by at most one pixel each way. The result is a function of the seed alone: one thread, no data-dependent stops, and the
test split is read once, at the end.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from hawqtvm.data import digits_split
from hawqtvm.models import DIGITS_CHECKPOINT, checkpoint
from hawqtvm.models.digits import DigitsResNet


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(N, 1, 8, 8) -> the same, each image moved by -1, 0 or 1 pixel in y and x, with zeros moving in."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    count, _, height, width = images.shape
    offset = torch.randint(0, 3, (2, count, 1, 1), generator=generator)
    # a one-pixel move is frequent enough to help, and rare enough to leave most images as they are at test time
    keep = torch.rand((count, 1, 1), generator=generator) < 0.5
    offset = torch.where(keep, 1, offset)
    rows = torch.arange(height).view(1, -1, 1) + offset[0]
    columns = torch.arange(width).view(1, 1, -1) + offset[1]
    return padded[torch.arange(count).view(-1, 1, 1), 0, rows, columns].unsqueeze(1)


def train(epochs: int, seed: int, batch: int = 64, build: Callable[[], nn.Module] = DigitsResNet) -> nn.Module:
    """Train a network on the train split: SGD with momentum, one cosine cycle after a short warm-up."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(seed)
    data = digits_split("train")
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    model = build()
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps, pct_start=0.15)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        order = torch.randperm(len(images), generator=generator)
        for chosen in order[: len(order) // batch * batch].split(batch):
            loss = loss_of(model(shifted(images[chosen], generator)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total * batch / len(images):.4f}", file=sys.stderr, flush=True)
    return model.eval()


def accuracy(model: nn.Module, split: str) -> float:
    """The share of a split's images that get the right class."""
    data = digits_split(split)
    with torch.no_grad():
        predicted = model(torch.from_numpy(data.images)).argmax(1)
    return (predicted == torch.from_numpy(data.labels)).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DIGITS_CHECKPOINT)
    options = parser.parse_args()
    model = train(options.epochs, options.seed)
    checkpoint.write(model, options.out)
    print(
        f"train accuracy {accuracy(model, 'train'):.2%}, test accuracy {accuracy(model, 'test'):.2%}, "
        f"{options.out.stat().st_size / 1e6:.2f} MB at {options.out}"
    )


if __name__ == "__main__":
    main()
