"""Random weights under which a deep network behaves like a trained one: for timing, where no checkpoint is at hand."""

import torch
from torch import nn

SEED = 0
IMAGES = 16
SIZE = 64


def fill(module: nn.Module, channels: int) -> nn.Module:
    """Give `module` seeded weights and matching batch-norm statistics; return it in eval mode.

    The statistics are those of one batch of noise, so that every layer's output has a sane mean and variance whatever
    the depth. That batch runs in float64 and is rounded at the end: the order in which a machine adds up then leaves
    no trace in the float32 weights.

    Args:
        module: convolutions, batch norms and fully connected layers, for inputs of `channels` channels, 64x64 pixels.
    """
    generator = torch.Generator().manual_seed(SEED)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(part.bias, 0.0, 0.2, generator=generator)
            part.momentum = 1.0
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0.0, part.in_features**-0.5, generator=generator)
            nn.init.zeros_(part.bias)
    noise = torch.randn(IMAGES, channels, SIZE, SIZE, generator=generator)
    with torch.no_grad():
        module.double().train()(noise.double())
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.1
    return module.float().eval()
