"""The operators the frontend knows: what each traced module, function or method is to the graph."""

import operator

import torch
import torch.nn.functional as F
from torch import nn

SUPPORTED = (
    "Conv2d, Linear, BatchNorm2d after a convolution, ReLU, ReLU6, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, mean over "
    "height and width, add, cat over channels, Flatten, Dropout, Identity"
)
# they leave their result in their first operand; so do modules and functions that say inplace=True
IN_PLACE = (operator.iadd, "add_", "relu_")
KINDS = {
    nn.Conv2d: "conv",
    nn.Linear: "linear",
    nn.BatchNorm2d: "norm",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.MaxPool2d: "max_pool",
    nn.AvgPool2d: "avg_pool",
    nn.AdaptiveAvgPool2d: "global_pool",
    nn.Flatten: "flatten",
    nn.Dropout: "same",
    nn.Dropout2d: "same",
    nn.Identity: "same",
    operator.add: "add",
    operator.iadd: "add",
    torch.add: "add",
    "add": "add",
    "add_": "add",
    F.relu: "relu",
    torch.relu: "relu",
    "relu": "relu",
    "relu_": "relu",
    F.relu6: "relu6",
    F.max_pool2d: "max_pool",
    torch.max_pool2d: "max_pool",
    F.avg_pool2d: "avg_pool",
    F.adaptive_avg_pool2d: "global_pool",
    torch.mean: "mean",
    "mean": "mean",
    torch.flatten: "flatten",
    "flatten": "flatten",
    "view": "reshape",
    "reshape": "reshape",
    torch.reshape: "reshape",
    torch.cat: "cat",
    torch.concat: "cat",
    F.dropout: "same",
    "contiguous": "same",
}
