"""The quantized checkpoint on disk: whole, or refused with a message that names it."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hawqtvm import checkpoint
from hawqtvm.checkpoint import MANIFEST, WEIGHTS, load_checkpoint, save_checkpoint
from hawqtvm.errors import BadInput
from hawqtvm.files import sha256_file
from tests.nets import NETS, quantized_net


@pytest.fixture
def saved(tmp_path):
    """The directory of a checkpoint that a test may damage."""
    save_checkpoint(quantized_net("residual"), tmp_path / "net.checkpoint")
    return tmp_path / "net.checkpoint"


def assert_damaged(path, message: str | None = None) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value) or "graph is damaged" in str(caught.value)


def edit(path, change) -> None:
    """Changes the manifest's object."""
    data = json.loads((path / MANIFEST).read_text())
    change(data)
    (path / MANIFEST).write_text(json.dumps(data))


def edit_weights(path, change) -> None:
    """Changes the tensors, and the hash with them."""
    tensors = load_file(path / WEIGHTS)
    change(tensors)
    save_file(tensors, path / WEIGHTS)
    edit(path, lambda d: d.update(weights_sha256=sha256_file(path / WEIGHTS)))


def test_a_changed_scale(saved):
    edit(saved, lambda d: d["ranges"]["input"]["uint8"].__setitem__(0, 0.5))
    assert_damaged(saved, "was changed")


@pytest.mark.parametrize("name", NETS)
def test_what_is_loaded_is_what_was_saved(name, tmp_path):
    model = quantized_net(name)
    digest = save_checkpoint(model, tmp_path / "q")
    loaded, identity = load_checkpoint(tmp_path / "q")
    assert digest == identity.sha256 == sha256_file(tmp_path / "q" / WEIGHTS)
    assert (loaded.name, identity.model) == (model.name, model.name)
    assert loaded.graph == model.graph
    assert loaded.ranges == model.ranges
    assert loaded.provenance == model.provenance
    np.testing.assert_array_equal(loaded.samples, model.samples)
    assert list(loaded.layers) == list(model.layers)
    for layer, expected in zip(loaded.layers.values(), model.layers.values(), strict=True):
        pairs = [(layer.weight, expected.weight), (layer.bias, expected.bias)]
        pairs += [(layer.codes[b], expected.codes[b]) for b in (4, 8)]
        pairs += [(layer.scales[b], expected.scales[b]) for b in (4, 8)]
        for got, wanted in pairs:
            assert got.dtype == wanted.dtype
            np.testing.assert_array_equal(got, wanted)


def test_saving_twice_writes_the_same_bytes(tmp_path):
    digests = {save_checkpoint(quantized_net("vgg"), tmp_path / name) for name in "ab"}
    assert len(digests) == 1
    assert (tmp_path / "a" / MANIFEST).read_bytes() == (tmp_path / "b" / MANIFEST).read_bytes()


def test_four_bit_weights_are_packed(saved):
    tensors = load_file(saved / WEIGHTS)
    codes4, codes8 = tensors["same.conv1.codes4"], tensors["same.conv1.codes8"]
    assert codes4.nbytes * 2 == codes8.nbytes


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_a_missing_file(saved, name):
    (saved / name).unlink()
    assert_damaged(saved, name)


def test_a_missing_directory(tmp_path):
    assert_damaged(tmp_path / "nothing", "no such file")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_a_truncated_file(saved, name, share):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(share * len(content))])
    assert_damaged(saved, "damaged")


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_flipped_bit_in_the_weights(saved, place):
    content = bytearray((saved / WEIGHTS).read_bytes())
    content[place] ^= 1
    (saved / WEIGHTS).write_bytes(content)
    assert_damaged(saved, "weights.safetensors is damaged")


@pytest.mark.parametrize("content", [b"\x00\xff\xfe", b"[]", b"null", b"{", b"[" * 100_000, b'"text"'])
def test_a_manifest_that_is_none(saved, content):
    (saved / MANIFEST).write_bytes(content)
    assert_damaged(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "hawqtvm-artifact"}, "not a hawqtvm-checkpoint"),
        ({"version": 2}, "newer"),
        ({"version": "1"}, "version"),
        ({"version": None}, "version"),
        ({"weights_sha256": None}, "damaged"),
        ({"weights_sha256": "0" * 64}, "damaged"),
        ({"graph": None}, "damaged"),
        ({"graph": {}}, "damaged"),
        ({"ranges": None}, "damaged"),
        ({"ranges": {}}, "damaged"),
        ({"ranges": {"input": {"uint8": [1e400, 1e400]}}}, "damaged"),
        ({"ranges": {"input": {"uint8": "ab"}}}, "damaged"),
        ({"provenance": None}, "damaged"),
        ({"provenance": 3}, "damaged"),
    ],
)
def test_a_manifest_of_another_kind_or_content(saved, change, message):
    edit(saved, lambda d: d.update(change))
    assert_damaged(saved, message)


@pytest.mark.parametrize("key", ["model", "graph", "ranges", "provenance", "weights_sha256", "version", "format"])
def test_a_manifest_without_a_key(saved, key):
    edit(saved, lambda d: d.pop(key))
    assert_damaged(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["graph"]["steps"].pop(1),
        lambda d: d["graph"]["steps"][0].update(op="softmax"),
        lambda d: d["graph"]["steps"][0].update(kernel=[5, 5]),
        lambda d: d["graph"]["steps"][0].update(dims=[17, 10, 10]),
        lambda d: d["graph"].update(input_dims=[4, 10, 10]),
        lambda d: d["graph"].update(input_dims=[3, 9, 10]),
        lambda d: d["graph"]["tensors"].pop("fc"),
        lambda d: d["ranges"].pop("same.add"),
        lambda d: d["ranges"]["same.add"].pop("uint4"),
        lambda d: d["ranges"]["same.add"].update(uint4=[0.0, 0]),
        lambda d: d["ranges"]["same.add"].update(uint4=[-1.0, 0]),
        lambda d: d["ranges"]["same.add"].update(uint4=[float("nan"), 0]),
    ],
)
def test_a_graph_of_another_network(saved, change):
    edit(saved, change)
    assert_damaged(saved, "damaged")


@pytest.mark.parametrize(
    "key", ["samples", "fc.weight", "fc.bias", "fc.codes4", "fc.codes8", "fc.scale4", "stem.0.scale8"]
)
def test_a_missing_tensor(saved, key):
    edit_weights(saved, lambda tensors: tensors.pop(key))
    assert_damaged(saved, f"damaged.*{key}")


@pytest.mark.parametrize("key", ["samples", "fc.weight", "fc.bias", "fc.codes4", "fc.codes8", "fc.scale4"])
def test_a_tensor_of_another_shape(saved, key):
    edit_weights(saved, lambda tensors: tensors.update({key: tensors[key].reshape(-1)[:1].copy()}))
    assert_damaged(saved, "damaged")


class Trap:
    """Unpickling this would fail the test."""

    def __reduce__(self):
        return pytest.fail, ("loading executed code",)


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_loading_executes_nothing(saved, name):
    (saved / name).write_bytes(pickle.dumps(Trap()))
    if name == WEIGHTS:
        edit(saved, lambda d: d.update(weights_sha256=sha256_file(saved / WEIGHTS)))
    assert_damaged(saved)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
def test_an_interrupted_save_leaves_what_was_there(saved, error, monkeypatch):
    def interrupted(model, directory):
        (directory / WEIGHTS).write_bytes(b"half")
        raise error

    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    monkeypatch.setattr(checkpoint, "write_checkpoint", interrupted)
    with pytest.raises(error):
        save_checkpoint(quantized_net("vgg"), saved)
    with pytest.raises(error):
        save_checkpoint(quantized_net("vgg"), saved.parent / "fresh")
    assert list(saved.parent.iterdir()) == [saved]
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


def test_a_foreign_directory_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInput, match="choose another"):
        save_checkpoint(quantized_net("vgg"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_older_checkpoint_is_replaced(saved):
    save_checkpoint(quantized_net("vgg"), saved)
    assert load_checkpoint(saved)[0].name == "VggNet"
