"""The known networks: torchvision's names and shapes, the embedded weights, and every bad checkpoint."""

import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from hawqtvm.data import load_images
from hawqtvm.errors import BadInput
from hawqtvm.models import DIGITS_CHECKPOINT, MODELS, RANDOM, TRAINED, checkpoint, load_model
from hawqtvm.models.resnet import resnet18, resnet50


def parameters(module):
    return sum(value.numel() for value in module.parameters())


@pytest.mark.parametrize(("build", "count", "tensors"), [(resnet18, 11_689_512, 122), (resnet50, 25_557_032, 320)])
def test_resnets_have_the_published_parameter_counts(build, count, tensors):
    module = build()
    assert parameters(module) == count
    assert len(module.state_dict()) == tensors


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (
            resnet18,
            {
                "conv1.weight": (64, 3, 7, 7),
                "bn1.running_var": (64,),
                "layer1.0.conv1.weight": (64, 64, 3, 3),
                "layer1.1.bn2.bias": (64,),
                "layer2.0.conv1.weight": (128, 64, 3, 3),
                "layer2.0.downsample.0.weight": (128, 64, 1, 1),
                "layer2.0.downsample.1.running_mean": (128,),
                "layer3.1.conv2.weight": (256, 256, 3, 3),
                "layer4.0.downsample.0.weight": (512, 256, 1, 1),
                "layer4.1.bn2.num_batches_tracked": (),
                "fc.weight": (1000, 512),
                "fc.bias": (1000,),
            },
        ),
        (
            resnet50,
            {
                "conv1.weight": (64, 3, 7, 7),
                "layer1.0.conv1.weight": (64, 64, 1, 1),
                "layer1.0.bn3.weight": (256,),
                "layer1.0.downsample.0.weight": (256, 64, 1, 1),
                "layer1.2.conv1.weight": (64, 256, 1, 1),
                "layer2.3.conv3.weight": (512, 128, 1, 1),
                "layer3.5.conv2.weight": (256, 256, 3, 3),
                "layer4.0.downsample.1.weight": (2048,),
                "layer4.2.conv3.weight": (2048, 512, 1, 1),
                "fc.weight": (1000, 2048),
            },
        ),
    ],
)
def test_resnets_have_torchvision_names_and_shapes(build, expected):
    state = build().state_dict()
    assert {key: tuple(state[key].shape) for key in expected} == expected
    assert not any(key.startswith("layer1.0.downsample") for key in resnet18().state_dict())


def test_resnet50_strides_in_the_3x3():
    block = resnet50().layer2[0]
    assert block.conv1.stride == (1, 1)
    assert block.conv2.stride == (2, 2)


@pytest.mark.parametrize("name", list(MODELS))
def test_models_trace_and_keep_their_result(name):
    model = load_model(name)
    traced = torch.fx.symbolic_trace(model.module)
    channels, *_ = model.input_shape
    image = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(traced(image), model.module(image))
        assert model.module(image).shape == (2, MODELS[name].classes)
    assert not model.module.training


def test_digits_are_recognised():
    model = load_model("digits")
    data = load_images("digits", model.input_shape)
    with torch.no_grad():
        predicted = model.module(torch.from_numpy(data.images)).argmax(1).numpy()
    assert model.weights == TRAINED
    assert len(data) == 360
    assert (predicted == data.labels).mean() >= 0.98


def test_digits_checkpoint_is_small_and_its_widths_are_multiples_of_16():
    assert DIGITS_CHECKPOINT.stat().st_size < 1_500_000
    weights = [value for value in load_file(DIGITS_CHECKPOINT).values() if value.ndim == 4]
    assert all(value.shape[0] % 16 == 0 for value in weights)


def test_random_weights_are_always_the_same_and_leave_the_global_generator_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = load_model("resnet18")
    torch.set_rng_state(before)
    torch.rand(5)
    second = load_model("resnet18")
    assert first.weights == RANDOM
    other = second.module.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in first.module.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_random_weights_keep_activations_at_a_sane_scale(name):
    model = load_model(name)
    scales = {}
    for part_name, part in model.module.named_modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.BatchNorm2d | torch.nn.Linear):
            part.register_forward_hook(lambda _m, _i, out, key=part_name: scales.update({key: out.std().item()}))
    with torch.no_grad():
        model.module(torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1)))
    assert all(0.05 < scale < 20 for scale in scales.values()), scales


def test_checkpoints_survive_a_round_trip(tmp_path):
    model = load_model("digits")
    state = model.module.state_dict()
    checkpoint.write(model.module, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "c.pt")
    without_counters = {key: value for key, value in state.items() if "num_batches" not in key}
    save_file(without_counters, tmp_path / "d.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.pth", "c.pt", "d.safetensors"]
    for path in tmp_path.iterdir():
        loaded = load_model("digits", path)
        assert loaded.weights == TRAINED
        assert all(
            torch.equal(value, state[key])
            for key, value in loaded.module.state_dict().items()
            if "num_batches" not in key
        )


def test_the_number_of_classes_is_the_checkpoint_s(tmp_path):
    checkpoint.write(resnet18(classes=7), tmp_path / "seven.safetensors")
    assert load_model("resnet18", tmp_path / "seven.safetensors").module.fc.out_features == 7


def test_half_precision_checkpoints_become_float32(tmp_path):
    state = {key: value.half() for key, value in load_model("digits").module.state_dict().items()}
    save_file(state, tmp_path / "half.safetensors")
    assert load_model("digits", tmp_path / "half.safetensors").module.conv1.weight.dtype == torch.float32


def refusal(name, path=None):
    with pytest.raises(BadInput) as caught:
        load_model(name, path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def digits_state():
    return load_file(DIGITS_CHECKPOINT)


def test_an_unknown_model_is_refused_with_the_known_ones():
    message = refusal("resnet19")
    assert "resnet19" in message
    assert all(name in message for name in MODELS)


def test_missing_and_foreign_files_are_refused(tmp_path):
    assert "does not exist" in refusal("digits", tmp_path / "gone.safetensors")
    folder = tmp_path / "folder.pth"
    folder.mkdir()
    assert "not a file" in refusal("digits", folder)
    (tmp_path / "weights.h5").write_bytes(b"x")
    assert ".safetensors, .pt, .pth" in refusal("digits", tmp_path / "weights.h5")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "noise"])
def test_damaged_files_are_refused(tmp_path, suffix, damage):
    path = tmp_path / f"damaged{suffix}"
    if suffix == ".pth":
        torch.save(digits_state(), path)
    else:
        save_file(digits_state(), path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "noise": os.urandom(1000)}[damage])
    assert str(path) in refusal("digits", path)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    torch.save({"conv1.weight": Bomb(str(tmp_path / "ran"))}, tmp_path / "bomb.pth")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Bomb(str(tmp_path / "ran"))))
    assert "bomb.pth" in refusal("digits", tmp_path / "bomb.pth")
    assert "raw.pt" in refusal("digits", tmp_path / "raw.pt")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_is_no_state_dict_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    assert "not a state dict" in refusal("digits", tmp_path / "list.pt")


def test_missing_unexpected_and_wrong_tensors_are_named(tmp_path):
    state = digits_state()
    del state["layer2.0.conv1.weight"]
    state["extra.weight"] = torch.zeros(3)
    state["conv1.weight"] = torch.zeros(32, 3, 3, 3)
    save_file(state, tmp_path / "other.safetensors")
    message = refusal("digits", tmp_path / "other.safetensors")
    assert "missing: layer2.0.conv1.weight" in message
    assert "unexpected: extra.weight" in message
    assert "conv1.weight (32, 3, 3, 3) instead of (32, 1, 3, 3)" in message


def test_another_network_s_checkpoint_gets_a_short_list():
    message = refusal("resnet50", DIGITS_CHECKPOINT)
    assert " more" in message
    assert len(message) < 700


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("layer3.1.conv2.weight", float("nan"), "NaN or Inf"),
        ("fc.bias", float("inf"), "NaN or Inf"),
        ("layer1.0.bn1.running_var", -1.0, "negative variance"),
    ],
)
def test_bad_values_are_refused_by_tensor_name(tmp_path, key, value, said):
    state = digits_state()
    state[key].view(-1)[0] = value
    save_file(state, tmp_path / "bad.safetensors")
    message = refusal("digits", tmp_path / "bad.safetensors")
    assert key in message
    assert said in message


def test_importing_the_package_does_not_import_torch():
    code = "import sys, hawqtvm, hawqtvm.models, hawqtvm.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
