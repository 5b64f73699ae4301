"""A small residual network for scikit-learn's 8x8 handwritten digits; its trained weights come with the package.

It has what the compiler must handle in a ResNet (identity and projection shortcuts, strides, average pool, a fully
connected layer) at a size where every check takes seconds.
"""

import torch
from torch import nn

from hawqtvm.models.resnet import BasicBlock, conv3x3, stage


class DigitsResNet(nn.Module):
    """(N, 1, 8, 8) float32, pixels / 16 so in [0, 1] -> (N, classes) logits.

    Three stages of two BasicBlocks, 32, 64 and 64 channels wide, at 8x8, 4x4 and 2x2.
    """

    def __init__(self, classes: int = 10):
        super().__init__()
        self.conv1 = conv3x3(1, 32)
        self.bn1 = nn.BatchNorm2d(32)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = stage(BasicBlock, 32, 32, blocks=2, stride=1)
        self.layer2 = stage(BasicBlock, 32, 64, blocks=2, stride=2)
        self.layer3 = stage(BasicBlock, 64, 64, blocks=2, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))
