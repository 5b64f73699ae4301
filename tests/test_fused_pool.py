"""Deployed networks whose stem pools its own output: every tensor that is left equals PyTorch's."""

import pytest
from torch import nn

from hawqtvm.deploy import deploy
from hawqtvm.runtime import load
from hawqtvm.verify import verify
from schedules.target import find_target
from tests.needs import needs_level
from tests.nets import Block, conv_norm, quantized, quantized_net


class PooledStem(nn.Module):
    """(N, 3, 21, 19) -> (N, 5): a ResNet's beginning, a block and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 20, 7, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.block = Block(20, 20)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 5))

    def forward(self, x):
        return self.head(self.block(self.stem(x)))


@pytest.fixture(scope="module")
def nets():
    return {name: quantized_net(name) for name in ("pools", "vgg")} | {"stem": quantized(PooledStem(), (3, 21, 19))}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("residual", ["uint8", "int16"])
@pytest.mark.parametrize("net", ["pools", "vgg", "stem"])
def test_the_pooled_tensor_equals_pytorch(nets, tmp_path, net, residual, threads):
    needs_level(find_target("avx2"))  # the portable schedule takes no pool
    options = {"residual": residual, "target": "native", "threads": threads, "verify": False, "measure": False}
    artifact = deploy(nets[net], 4, 3, tmp_path / "artifact", **options).path
    stem = load(artifact).manifest["layers"][0]
    graph = nets[net].graph
    (pool,) = [step.name for step in graph.steps if step.op == "max_pool2d"]
    assert stem["tensor"] == pool and stem["fused_pool"]["kernel"] == list(graph.step(pool).kernel)
    rows = {row.tensor: row for row in verify(artifact)}
    assert rows[pool].wrong == 0 and graph.step(pool).inputs[0] not in rows
    # the stream is requantized where it is made
    assert bool(stem["second_output"]) == (net == "stem")
