"""A module of the user's own, through the functions, as the README shows."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from hawqtvm.deploy import deploy
from hawqtvm.errors import BadInput
from hawqtvm.quantize import quantize
from hawqtvm.runtime import load
from hawqtvm.verify import verify

DIMS = (3, 12, 12)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 1, 1),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 10))

    def forward(self, x):
        return self.head(torch.relu(self.features(x)))


@pytest.fixture(scope="module")
def images():
    return torch.randn(24, *DIMS, generator=torch.Generator().manual_seed(0))


def trained(images):
    """Batch-norm statistics and weights as a training leaves them."""
    torch.manual_seed(0)
    module = Small()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(images), torch.arange(24) % 10).backward()
        optimizer.step()
    return module


@pytest.mark.parametrize("training", [False, True])
def test_a_module_becomes_an_exact_artifact_and_stays_as_it_was(images, tmp_path, training):
    module = trained(images).train(training)
    before = copy.deepcopy(module.state_dict())
    gradients = {name: p.requires_grad for name, p in module.named_parameters()}

    quantized = quantize(module, images.split(8))
    artifact = deploy(quantized, bits={"features.3": 4}, batch=2, out=tmp_path / "small", threads=1)
    rows = verify(artifact)
    model = load(artifact)

    assert module.training is training and all(m.training is training for m in module.modules())
    assert gradients == {name: p.requires_grad for name, p in module.named_parameters()}
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(row.wrong == 0 for row in rows)
    logits = model(images[:2].numpy())
    assert logits.dtype == np.int32 and logits.shape == (2, 10)
    with torch.no_grad():
        expected = module.eval()(images).numpy()
    got = model.run_all(images.numpy()) * model.logits_scale
    assert np.linalg.norm(got - expected) < 0.2 * np.linalg.norm(expected)


def test_any_kind_of_batches_gives_the_same_model(images):
    module = trained(images).eval()
    batches = images.split(8)
    same = [
        [batch.numpy() for batch in batches],
        (batch for batch in batches),
        [batch.double() for batch in batches],
        [batch.to(memory_format=torch.channels_last) for batch in batches],
    ]
    expected = quantize(module, batches)
    for other in same:
        found = quantize(module, other)
        assert found.ranges == expected.ranges
        for name, layer in found.layers.items():
            np.testing.assert_array_equal(layer.codes[4], expected.layers[name].codes[4])
        np.testing.assert_array_equal(found.samples, expected.samples)


def test_a_last_batch_may_be_smaller(images):
    assert quantize(trained(images), images.split(7)).provenance["calibration_images"] == 24


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "calibration set is empty"),
        ([torch.zeros(0, *DIMS)], "empty"),
        ([torch.zeros(*DIMS)], r"shape \(3, 12, 12\); the model takes \(N, C, H, W\)"),
        ([torch.ones(2, *DIMS), torch.ones(2, 3, 13, 12)], r"takes \(N, 3, 12, 12\)"),
        ([torch.full((2, *DIMS), torch.nan)], "NaN"),
        ([(torch.ones(2, *DIMS), torch.zeros(2))], r"images \(N, C, H, W\) only"),
        ([{"image": torch.ones(2, *DIMS)}], r"images \(N, C, H, W\) only"),
        ([torch.ones(2, *DIMS).requires_grad_()], "detach"),
        (["a.png"], r"images \(N, C, H, W\) only"),
        (torch.utils.data.DataLoader([(torch.ones(DIMS), 1)] * 4, 2), r"images \(N, C, H, W\) only"),
    ],
)
def test_batches_that_cannot_be_used_are_explained(images, batches, message):
    with pytest.raises(BadInput, match=message) as error:
        quantize(trained(images), batches)
    assert "\n" not in str(error.value)
