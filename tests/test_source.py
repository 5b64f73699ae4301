"""From what a command names to a quantized model: reused where nothing changed, made again where anything did."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hawqtvm.checkpoint import MANIFEST, WEIGHTS, load_checkpoint, save_checkpoint
from hawqtvm.console import Parser
from hawqtvm.errors import BadInput
from hawqtvm.models import load_model
from hawqtvm.quantize import quantize_source
from hawqtvm.source import (
    Source,
    accuracy,
    add_options,
    calibration_images,
    from_options,
    labelled_images,
)
from hawqtvm.source import float_model as make
from tests.nets import noise, quantized_net

DIGITS = Source(limit=16)
OWN = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.{activation}(), nn.Flatten(), nn.Linear(144, 5))

class NeedsAnArgument(nn.Module):
    def __init__(self, width):
        super().__init__()

def no_module():
    return 3
"""


@pytest.fixture
def write_own(tmp_path, monkeypatch):
    """Function: writes a module of the user's own and returns the name of it, new each time."""
    monkeypatch.syspath_prepend(tmp_path)
    count = iter(range(100))

    def write(activation: str = "ReLU") -> str:
        name = f"own_{tmp_path.name}_{next(count)}"
        (tmp_path / f"{name}.py").write_text(OWN.format(activation=activation))
        return name

    return write


@pytest.fixture
def images(tmp_path):
    """A .npz of noise."""
    np.savez(tmp_path / "images.npz", images=noise(6, (3, 8, 8)))
    return str(tmp_path / "images.npz")


@pytest.fixture
def own(write_own, images):
    return Source(f"{write_own()}:net", data=images, input_dims=(3, 8, 8))


def reused(source: Source, cache, capsys) -> bool:
    capsys.readouterr()
    model, digest = quantize_source(source, cache)
    loaded, identity = load_checkpoint(cache)
    assert identity.sha256 == digest
    assert loaded.provenance["fingerprint"] == model.provenance["fingerprint"]
    return "quantized already" in capsys.readouterr().err


# -- reuse --


def test_the_same_source_is_quantized_once(tmp_path, capsys):
    assert not reused(DIGITS, tmp_path / "q", capsys)
    written = (tmp_path / "q" / WEIGHTS).stat().st_mtime_ns
    assert reused(DIGITS, tmp_path / "q", capsys)
    assert (tmp_path / "q" / WEIGHTS).stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "change", [{"limit": 17}, {"activation_range": "minmax"}, {"weight_range": "percentile"}, {"data": "random"}]
)
def test_another_option_quantizes_again(change, tmp_path, capsys):
    quantize_source(DIGITS, tmp_path / "q")
    assert not reused(replace(DIGITS, **change), tmp_path / "q", capsys)


def test_other_weights_quantize_again(tmp_path, capsys):
    quantize_source(DIGITS, tmp_path / "q")
    state = load_model("digits").module.state_dict()
    state["fc.bias"][0] += 1
    save_file(state, tmp_path / "other.safetensors")
    assert not reused(replace(DIGITS, checkpoint=str(tmp_path / "other.safetensors")), tmp_path / "q", capsys)


def test_other_images_in_the_same_file_quantize_again(own, tmp_path, capsys):
    quantize_source(own, tmp_path / "q")
    assert reused(own, tmp_path / "q", capsys)
    np.savez(own.data, images=noise(6, (3, 8, 8), seed=1))
    assert not reused(own, tmp_path / "q", capsys)


def test_another_network_of_the_same_name_and_weights_quantizes_again(own, write_own, tmp_path, capsys, monkeypatch):
    from hawqtvm import quantize as stage

    quantize_source(own, tmp_path / "q")
    changed = make(replace(own, model=f"{write_own('ReLU6')}:net"))
    monkeypatch.setattr(stage, "float_model", lambda source: replace(changed, name=source.model))
    assert not reused(own, tmp_path / "q", capsys)


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_a_damaged_result_is_made_again(name, tmp_path, capsys):
    first, digest = quantize_source(DIGITS, tmp_path / "q")
    (tmp_path / "q" / name).write_bytes((tmp_path / "q" / name).read_bytes()[:3000])
    assert not reused(DIGITS, tmp_path / "q", capsys)
    assert load_checkpoint(tmp_path / "q")[1].sha256 == digest


def test_without_a_cache_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, digest = quantize_source(DIGITS)
    assert digest is None
    assert model.name == "digits"
    assert not list(tmp_path.iterdir())


# -- a quantized checkpoint --


def test_a_quantized_checkpoint_is_loaded(tmp_path):
    digest = save_checkpoint(quantized_net("vgg"), tmp_path / "q")
    source = Source(checkpoint=str(tmp_path / "q"))
    assert source.quantized
    model, found = quantize_source(source, tmp_path / "cache")
    assert (model.name, found) == ("VggNet", digest)
    assert not (tmp_path / "cache").exists()
    assert quantize_source(replace(source, model="VggNet"))[1] == digest
    with pytest.raises(BadInput, match="checkpoint of VggNet, not of digits"):
        quantize_source(replace(source, model="digits"))


def test_a_directory_without_a_checkpoint(tmp_path):
    with pytest.raises(BadInput, match="no such file.*checkpoint.json"):
        quantize_source(Source(checkpoint=str(tmp_path)))


# -- a model of the user's own --


def test_a_model_of_ones_own(own, tmp_path):
    model, _ = quantize_source(own, tmp_path / "q")
    assert model.name == own.model
    assert model.graph.input_dims == (3, 8, 8)
    assert model.provenance["weights"] == "trained"
    assert model.provenance["calibration"] == "images"


def test_its_float_checkpoint_is_filled_in(own, tmp_path):
    state = make(own).module.state_dict()
    save_file({k: torch.full_like(v, 0.5) for k, v in state.items()}, tmp_path / "own.safetensors")
    filled = make(replace(own, checkpoint=str(tmp_path / "own.safetensors"))).module
    assert all((v == 0.5).all() for v in filled.state_dict().values())
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(BadInput, match="other.safetensors.*missing"):
        make(replace(own, checkpoint=str(tmp_path / "other.safetensors")))


def test_it_needs_a_shape_and_data(own):
    with pytest.raises(BadInput, match="--input C,H,W is needed"):
        quantize_source(replace(own, input_dims=None))
    with pytest.raises(BadInput, match="--data is needed"):
        quantize_source(replace(own, data=None))


def test_a_wrong_shape_names_the_model(own):
    with pytest.raises(BadInput, match=r"Sequential does not run on an input of shape \(3, 9, 9\)"):
        quantize_source(replace(own, input_dims=(3, 9, 9)))


@pytest.mark.parametrize("what", ["nothing", "NeedsAnArgument", "no_module", "torch", ""])
def test_what_is_no_model(what, write_own):
    name = f"{write_own()}:{what}"
    with pytest.raises(BadInput, match=name):
        make(Source(name, input_dims=(3, 8, 8)))


@pytest.mark.parametrize("name", ["no_such_module_here:net", ":net", "..:net"])
def test_what_is_no_module(name):
    with pytest.raises(BadInput, match="module:callable"):
        make(Source(name, input_dims=(3, 8, 8)))


def test_an_unknown_model():
    with pytest.raises(BadInput, match="'nothing'.*digits"):
        make(Source("nothing"))


@pytest.mark.parametrize("name", ["weights.onnx", "missing.safetensors"])
def test_a_float_checkpoint_that_is_none(name, tmp_path):
    with pytest.raises(BadInput, match=name):
        quantize_source(Source(checkpoint=str(tmp_path / name)))


# -- data and accuracy --


def test_digits_are_calibrated_on_their_training_images():
    found = calibration_images(DIGITS, "digits", (1, 8, 8), "trained")
    assert (found.name, found.split, len(found)) == ("digits", "train", 16)


def test_labelled_images(own):
    digits = labelled_images(
        DIGITS, replace(quantized_net("vgg"), name="digits", graph=quantize_source(DIGITS)[0].graph)
    )
    assert digits.split == "test"
    assert labelled_images(own, quantized_net("vgg")) is None
    assert labelled_images(Source(), quantized_net("vgg")) is None
    random = replace(quantized_net("vgg"), provenance={"weights": "random weights: speed only"})
    assert labelled_images(own, random) is None


def test_accuracy_is_in_percent():
    scores = np.array([[0, 2], [3, 1], [5, 4], [7, 8]]).reshape(4, 2, 1, 1)
    assert accuracy(scores, np.array([1, 0, 1, 1])) == 75.0


# -- options --


def options(*arguments: str) -> Source:
    parser = Parser("stage", "a stage")
    add_options(parser)
    return from_options(parser.parse_args(arguments))


def test_options_make_a_source():
    assert options() == Source()
    assert options("--model", "own:net", "--input", "3,8,16", "--data", "d", "--calibration-images", "9") == Source(
        "own:net", None, "d", (3, 8, 16), 9
    )
    assert options("--activation-range", "minmax", "--weight-range", "percentile") == Source(
        activation_range="minmax", weight_range="percentile"
    )


@pytest.mark.parametrize("text", ["3", "3,8", "3,8,8,8", "3,0,8", "3,-8,8", "3,8.0,8", "a,b,c", "3,,8", "3,8,²"])
def test_an_input_shape_that_is_none(text):
    with pytest.raises(BadInput, match="--input.*channels, height and width"):
        options("--model", "own:net", f"--input={text}")


def test_a_known_model_has_its_own_shape():
    with pytest.raises(BadInput, match="--input.*resnet18"):
        options("--model", "resnet18", "--input", "3,64,64")


@pytest.mark.parametrize("count", ["0", "-1"])
def test_no_calibration_images(count):
    with pytest.raises(BadInput, match="--calibration-images"):
        options("--calibration-images", count)
