"""Small networks that hold, between them, every operator and every kind of tensor; their weights are seeded noise."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import nn

from hawqtvm.qnn.model import QuantizedModel
from hawqtvm.quantize import quantize

BATCHES, BATCH = 2, 4


def conv_norm(in_channels: int, out_channels: int, kernel: int, **options) -> nn.Sequential:
    """A convolution without bias and its batch norm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, bias=False, **options), nn.BatchNorm2d(out_channels)
    )


class Block(nn.Module):
    """A residual block: 3x3, 3x3, and the identity or a 1x1 convolution as its shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and in_channels == out_channels
        self.downsample = None if same else conv_norm(in_channels, out_channels, 1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + shortcut)


class ResidualNet(nn.Module):
    """(N, 3, 10, 10) -> (N, 10): a stem, a block with the identity, one with a strided shortcut, pool and head."""

    def __init__(self):
        super().__init__()
        self.stem = conv_norm(3, 16, 3, padding=1)
        self.relu = nn.ReLU()
        self.same = Block(16, 16)
        self.down = Block(16, 20, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(self.same(self.relu(self.stem(x))))
        return self.fc(torch.flatten(self.pool(x), 1))


class BranchNet(nn.Module):
    """(N, 3, 8, 8) -> (N, 7): a concat of a branch that others read too, a plain one and a pooled one, and another."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.shared = nn.Conv2d(12, 8, 1)
        self.plain = nn.Conv2d(12, 10, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.join = nn.Conv2d(30, 16, 1)
        self.side = nn.Conv2d(8, 6, 3, padding=1)
        self.mix = nn.Conv2d(22, 9, 3, stride=2)
        self.fc = nn.Linear(9, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        shared = torch.relu(self.shared(x))
        joined = torch.cat([shared, torch.relu(self.plain(x)), self.pool(x)], 1)
        joined = torch.cat([self.join(joined), self.side(shared)], 1)
        return self.fc(torch.relu(self.mix(joined)).mean((2, 3)))


class PoolNet(nn.Module):
    """(N, 3, 16, 16) -> (N, 5): ReLU6, max and average pools, depthwise, grouped and dilated convolutions."""

    def __init__(self):
        super().__init__()
        self.stem = conv_norm(3, 12, 3, stride=2, padding=1)
        self.relu6 = nn.ReLU6()
        self.max_pool = nn.MaxPool2d(3, 1, 1)
        self.depthwise = conv_norm(12, 12, 3, padding=1, groups=12)
        self.pointwise = conv_norm(12, 16, 1)
        self.dilated = nn.Conv2d(16, 16, 3, padding=2, dilation=2)
        self.relu = nn.ReLU()
        self.avg_pool = nn.AvgPool2d(3, 2, 1)
        self.grouped = nn.Conv2d(16, 24, (3, 1), padding=(1, 0), groups=2)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.max_pool(self.relu6(self.stem(x)))
        x = self.relu6(self.pointwise(self.relu6(self.depthwise(x))))
        x = self.avg_pool(self.relu(self.dilated(x)))
        x = self.relu(self.grouped(x))
        return self.fc(self.global_pool(x).flatten(1))


class VggNet(nn.Module):
    """(N, 3, 8, 8) -> (N, 6): convolutions, a flattened image, a hidden and a last fully connected layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * 4 * 4, 20),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(20, 12),
            nn.ReLU(),
            nn.Linear(12, 6),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


class PooledOutputNet(nn.Module):
    """(N, 3, 8, 8) -> (N, 5): the last layer is a convolution, the output its average."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 5, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.middle(torch.relu(self.stem(x))))
        return torch.flatten(self.pool(self.last(x)), 1)


class JoinedOutputNet(nn.Module):
    """(N, 3, 8, 8) -> (N, 9, 3, 3): two layers of different scales, joined and pooled, make the output."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.left = nn.Conv2d(8, 4, 1)
        self.right = nn.Conv2d(8, 5, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.middle(torch.relu(self.stem(x))))
        return self.pool(torch.cat([self.left(x), self.right(x)], 1))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "residual": (ResidualNet, (3, 10, 10)),
    "branches": (BranchNet, (3, 8, 8)),
    "pools": (PoolNet, (3, 16, 16)),
    "vgg": (VggNet, (3, 8, 8)),
    "pooled output": (PooledOutputNet, (3, 8, 8)),
    "joined output": (JoinedOutputNet, (3, 8, 8)),
}


def seeded(net: nn.Module, seed: int = 0) -> nn.Module:
    """``net`` in eval mode, its weights and batch-norm statistics drawn from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, (2 / part.weight[0].numel()) ** 0.5, generator=generator)
            if part.bias is not None:
                nn.init.normal_(part.bias, 0.0, 0.1, generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(part.bias, 0.0, 0.2, generator=generator)
            part.running_mean.normal_(0.0, 0.2, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
    return net.eval()


def noise(count: int, dims: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Standard normal float32 images ``(count, *dims)``."""
    return np.random.default_rng(seed).standard_normal((count, *dims), "float32")


def quantized(net: nn.Module, dims: tuple[int, int, int], seed: int = 0, **options) -> QuantizedModel:
    """``net`` with seeded weights, calibrated on seeded noise; ``options`` go to :func:`hawqtvm.quantize.quantize`."""
    batches = [noise(BATCH, dims, seed + i) for i in range(BATCHES)]
    return quantize(seeded(net, seed), batches, type(net).__name__, **options)


@cache
def quantized_net(name: str, seed: int = 0) -> QuantizedModel:
    """One of ``NETS``, quantized; not to be changed."""
    build, dims = NETS[name]
    return quantized(build(), dims, seed)
