"""The quantize stage: every network, every odd layer and every bad input, and its command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hawqtvm.calibrate import Observer
from hawqtvm.checkpoint import load_checkpoint
from hawqtvm.errors import BadInput
from hawqtvm.qnn.model import RESIDUALS, Arithmetic
from hawqtvm.qnn.quantizers import METHODS
from hawqtvm.qnn.reference import float_logits, logits
from hawqtvm.quantize import main, quantize
from tests.nets import NETS, conv_norm, noise, quantized, quantized_net, seeded

DIMS = (3, 8, 8)


def plain_net() -> nn.Sequential:
    convolutions = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    return seeded(nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)))


def quantize_now(net: nn.Module, **options):
    return quantize(net, [noise(8, DIMS)], "net", **options)


def real_logits(model, bits=8, residual="int16") -> np.ndarray:
    arithmetic = Arithmetic(model, model.bits(bits), residual)
    q = arithmetic.tensors[model.graph.output.name]
    return (logits(arithmetic, model.samples) - q.zero_point) * q.scale


def relative_error(model, **options) -> float:
    expected = float_logits(model, noise(8, DIMS))
    return float(np.linalg.norm(real_logits(model, **options) - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", NETS)
def test_every_network_under_every_plan(name, bits, residual):
    assert np.isfinite(real_logits(quantized_net(name), bits, residual)).all()


@pytest.mark.parametrize("weight_range", METHODS)
@pytest.mark.parametrize("activation_range", METHODS)
def test_every_range_method(activation_range, weight_range):
    model = quantize_now(plain_net(), activation_range=activation_range, weight_range=weight_range)
    assert relative_error(model) < 0.03
    assert model.provenance["activation_range"] == activation_range
    assert model.provenance["weight_range"] == weight_range


def test_what_a_model_says_of_itself():
    model = quantize_now(plain_net(), provenance={"calibration": "noise"})
    assert model.name == "net"
    assert model.samples.shape == (8, *DIMS)
    assert model.samples.dtype == np.uint8
    assert model.provenance["calibration_images"] == 8
    assert model.provenance["calibration"] == "noise"
    assert model.provenance["warnings"] == []


def test_batches_may_be_tensors_and_of_different_sizes():
    images = noise(7, DIMS)
    model = quantize(plain_net(), (torch.from_numpy(part) for part in (images[:4], images[4:])), "net")
    assert model.provenance["calibration_images"] == 7


def test_the_same_input_gives_the_same_model():
    first, second = (quantized(NETS["residual"][0](), (3, 10, 10)) for _ in range(2))
    assert first.ranges == second.ranges
    assert first.graph == second.graph
    for name, layer in first.layers.items():
        for bits in (4, 8):
            np.testing.assert_array_equal(layer.codes[bits], second.layers[name].codes[bits])
            np.testing.assert_array_equal(layer.scales[bits], second.layers[name].scales[bits])


def test_the_module_keeps_its_mode_and_weights():
    net = plain_net().train()
    net[1].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    quantize_now(net)
    assert net.training and not net[1].training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


# -- odd layers --


def test_an_all_zero_channel_is_exact_and_warned_of():
    net = plain_net()
    with torch.no_grad():
        net[2].weight[3] = 0
        net[2].bias[3] = 0.75
    model = quantize_now(net)
    assert any("layer 2" in w and "3" in w for w in model.provenance["warnings"])
    layer = model.layers["2"]
    for bits in (4, 8):
        assert not layer.codes[bits][3].any()
        assert np.isfinite(layer.scales[bits]).all() and (layer.scales[bits] > 0).all()
    # the bias alone is left: the channel's mean is one constant, to half a code
    arithmetic = Arithmetic(model, model.bits(8))
    p = arithmetic.parameters(model.graph.step("2"))
    assert p.bias[3] * arithmetic.accumulator_scale(model.graph.step("2"))[3] == pytest.approx(0.75, rel=1e-3)
    assert relative_error(model) < 0.03


@pytest.mark.parametrize("bias", [0.0, 0.5, -0.5, 1e-9, -1e-9, 1e4])
@pytest.mark.parametrize("index", [0, 2, 6])
def test_an_all_zero_layer(index, bias):
    net = plain_net()
    with torch.no_grad():
        net[index].weight.zero_()
        net[index].bias.fill_(bias)
    model = quantize_now(net)
    assert any(f"layer {index}:" in w for w in model.provenance["warnings"])
    for bits in (4, 8):
        np.testing.assert_allclose(
            real_logits(model, bits), float_logits(model, noise(8, DIMS)), rtol=0.3, atol=max(0.05, abs(bias) / 10)
        )


@pytest.mark.parametrize("bias", [-1e-2, -1.0])
def test_a_layer_that_never_fires(bias):
    """A dead layer: batch norm has shrunk it to nothing, and ReLU holds it at 0."""
    net = seeded(nn.Sequential(conv_norm(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3)))
    with torch.no_grad():
        net[0][1].weight.fill_(1e-13)
        net[0][1].bias.fill_(bias)
        net[0][1].running_mean.zero_()
    model = quantize_now(net)
    assert any("0.0 is 0" in w for w in model.provenance["warnings"])
    assert relative_error(model) < 0.03


@pytest.mark.parametrize("tiny", [1e-3, 1e-12, 1e-30])
def test_a_huge_bias_on_a_tiny_channel(tiny):
    net = plain_net()
    with torch.no_grad():
        net[0].weight[1] *= tiny
        net[0].bias[1] = 1e5
    assert np.isfinite(real_logits(quantize_now(net))).all()
    assert relative_error(quantize_now(net)) < 0.05


# -- bad input --


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value):
    net = plain_net()
    with torch.no_grad():
        net[2].weight[0, 0, 0, 0] = value
    with pytest.raises(BadInput, match="layer 2.*NaN or infinite"):
        quantize_now(net)


def test_weights_that_overflow_an_activation():
    net = plain_net()
    with torch.no_grad():
        net[2].weight.fill_(3e38)
    with pytest.raises(BadInput, match="activation 2 overflows"):
        quantize_now(net)


def test_an_activation_that_overflows_in_the_last_batch_only():
    net = plain_net()
    with torch.no_grad():
        net[2].weight.fill_(1e30)
    with pytest.raises(BadInput, match="overflows"):
        quantize(net, [noise(2, DIMS), 1e10 * noise(2, DIMS)])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_observer_forgets_no_value_that_is_not_finite(value):
    observer = Observer()
    for values in ([1.0, -2.0], [0.5, value], [3.0, -3.0]):
        observer.see(np.float32(values))
    assert not np.isfinite(observer.high - observer.low)


def with_value(value: float) -> np.ndarray:
    images = noise(2, DIMS)
    images[1, 2, 3, 4] = value
    return images


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "empty"),
        ([np.zeros((0, *DIMS), "float32")], "empty"),
        ([noise(2, DIMS), np.zeros((0, *DIMS), "float32")], "empty"),
        ([with_value(np.nan)], "NaN or infinity"),
        ([noise(2, DIMS), with_value(np.inf)], "NaN or infinity"),
        ([np.zeros((4, *DIMS), "float32")], "every calibration image is zero"),
        ([noise(2, DIMS)[0]], r"shape \(3, 8, 8\).*\(N, C, H, W\)"),
        (noise(2, DIMS), r"shape \(3, 8, 8\).*\(N, C, H, W\)"),
        ([noise(2, DIMS), noise(2, (3, 9, 8))], r"shape \(2, 3, 9, 8\).*\(N, 3, 8, 8\)"),
        ([noise(2, (4, 8, 8))], "does not run on an input of shape"),
        ([(noise(2, DIMS), np.zeros(2))], "no array of images"),
        ([["a.png", "b.png"]], "no array of images"),
    ],
)
def test_calibration_data_that_cannot_be_used(batches, message):
    with pytest.raises(BadInput, match=message):
        quantize(plain_net(), batches)


@pytest.mark.parametrize("option", ["activation_range", "weight_range"])
def test_an_unknown_range_method(option):
    with pytest.raises(BadInput, match="'entropy'.*minmax, percentile, mse"):
        quantize_now(plain_net(), **{option: "entropy"})


def test_a_model_without_layers():
    with pytest.raises(BadInput, match="nothing to quantize"):
        quantize_now(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))


class AddsInPlace(nn.Module):
    """torch.fx shows ``y += ...`` as ``y + ...``, and does not see that ``x`` changes too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        y = z = self.first(x)
        y += self.second(x)
        return y + z


def test_a_module_that_torch_fx_traces_wrongly():
    with pytest.raises(BadInput, match="AddsInPlace.*differs"):
        quantize_now(seeded(AddsInPlace()))


# -- the command --


def test_the_command_writes_a_checkpoint_and_a_table(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "q"), "--calibration-images", "32"]) == 0
    out = capsys.readouterr().out
    model, identity = load_checkpoint(tmp_path / "q")
    assert all(name in out for name in model.layers)
    assert identity.sha256[:12] in out
    assert model.provenance["calibration"] == "digits"


def test_the_command_as_a_process_prints_only_json(tmp_path):
    command = [sys.executable, "-m", "hawqtvm.quantize", "--json", "--calibration-images", "16", "--out", "q"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    model, identity = load_checkpoint(tmp_path / "q")
    assert printed["model"] == model.name
    assert printed["sha256"] == identity.sha256
    assert printed["tied"] == model.graph.tied()
    assert printed["fixed"] == model.graph.fixed()
    assert [row["name"] for row in printed["layers"]] == list(model.layers)
    assert all(0 < row["error8"] < row["error4"] < 1 for row in printed["layers"])
    again = subprocess.run(
        [*command, "--model", "nothing"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert again.returncode == 2
    assert again.stdout == ""
    assert again.stderr.startswith("error: model 'nothing'")
    assert "Traceback" not in again.stderr


def test_the_command_refuses_a_quantized_checkpoint(tmp_path):
    main(["--out", str(tmp_path / "q"), "--calibration-images", "8"])
    with pytest.raises(BadInput, match="quantized already"):
        main(["--checkpoint", str(tmp_path / "q"), "--out", str(tmp_path / "r")])


@pytest.mark.parametrize(
    "arguments", [[], ["--out", "q", "--activation-range", "entropy"], ["--out", "q", "--bits", "4"]]
)
def test_wrong_options_leave_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "error" in capsys.readouterr().err
