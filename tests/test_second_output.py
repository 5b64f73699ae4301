"""Deployed networks whose residual stream is requantized by the kernels that write it: both tensors are compared."""

import pytest
from torch import nn

from hawqtvm.deploy import deploy
from hawqtvm.errors import CheckFailed
from hawqtvm.models import load_model
from hawqtvm.qnn.formats import Format
from hawqtvm.quantize import quantize
from hawqtvm.runtime import load
from hawqtvm.verify import verify
from tests.nets import conv_norm, noise, quantized, quantized_net


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and the identity or a 1x1 convolution as its shortcut."""

    def __init__(self, in_channels: int, width: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.reduce = conv_norm(in_channels, width, 1)
        self.middle = conv_norm(width, width, 3, stride=stride, padding=1)
        self.expand = conv_norm(width, out_channels, 1)
        same = stride == 1 and in_channels == out_channels
        self.downsample = nn.Identity() if same else conv_norm(in_channels, out_channels, 1, stride=stride)
        self.relu = nn.ReLU()

    def forward(self, x):
        body = self.relu(self.middle(self.relu(self.reduce(x))))
        return self.relu(self.expand(body) + self.downsample(x))


class BottleneckNet(nn.Module):
    """(N, 3, 11, 11) -> (N, 6)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 24, 3, padding=1), nn.ReLU())
        self.blocks = nn.Sequential(Bottleneck(24, 16, 48), Bottleneck(48, 16, 48), Bottleneck(48, 24, 72, stride=2))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(72, 6))

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


@pytest.fixture(scope="module")
def nets():
    return {"residual": quantized_net("residual"), "bottleneck": quantized(BottleneckNet(), (3, 11, 11))}


@pytest.mark.parametrize(("target", "activations"), [("native", "bytes"), ("native", "words"), ("x86-64", "words")])
@pytest.mark.parametrize("residual", ["uint8", "int16", "int32"])
@pytest.mark.parametrize("net", ["residual", "bottleneck"])
def test_both_outputs_equal_pytorch(nets, tmp_path, net, residual, target, activations):
    options = {"residual": residual, "activations": activations, "target": target, "threads": 1}
    options |= {"verify": False, "measure": False}
    artifact = deploy(nets[net], 4, 2, tmp_path / "artifact", **options).path
    rows = {row.tensor: row for row in verify(artifact)}
    layers = load(artifact).manifest["layers"]
    seconds = {k["tensor"]: k["second_output"] for k in layers if k["second_output"]}
    assert seconds and all(second["tensor"] == f"{tensor}.codes" for tensor, second in seconds.items())
    assert not any(k["op"] == "qnn.requantize" for k in layers)
    for tensor, second in seconds.items():
        assert (rows[tensor].code, rows[f"{tensor}.codes"].code) == (residual, "uint4")
        assert rows[tensor].wrong == rows[f"{tensor}.codes"].wrong == 0
        assert rows[tensor].codes == rows[f"{tensor}.codes"].codes
        packed = Format(second["code"], second["layout"], second["packed"]).packed
        assert packed == (activations == "words")


def test_a_wrong_second_output_is_found(nets, tmp_path, monkeypatch):
    path = deploy(nets["residual"], 4, 2, tmp_path / "a", threads=1, verify=False, measure=False).path
    model = load(path)
    second = next(k["second_output"] for k in model.manifest["layers"] if k["second_output"])
    trace = type(model).trace

    def spoiled(self, codes):
        stored = trace(self, codes)
        wrong = stored[second["tensor"]].copy()
        wrong.flat[-1] ^= 1
        return stored | {second["tensor"]: wrong}

    monkeypatch.setattr(type(model), "trace", spoiled)
    with pytest.raises(CheckFailed, match=f"layer {second['tensor']} is the first that differs"):
        verify(path)


@pytest.mark.slow
@pytest.mark.parametrize("residual", ["uint8", "int16"])
def test_resnet18(tmp_path, residual):
    images = noise(2, (3, 224, 224))
    model = quantize(load_model("resnet18").module, [images], "resnet18")
    artifact = deploy(model, 4, 1, tmp_path / "artifact", residual=residual, threads=1, verify=False, measure=False)
    assert all(row.wrong == 0 for row in verify(artifact.path))
