"""A good artifact passes whole; a damaged or edited one is refused by name, never explained by a traceback."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hawqtvm import verify as module
from hawqtvm.checkpoint import save_checkpoint
from hawqtvm.deploy import deploy
from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.qnn.model import Arithmetic
from hawqtvm.runtime import load
from hawqtvm.verify import Row, first_difference, inputs, merged, show, verify
from tests.nets import noise, quantized_net

BATCH, DIMS = 2, (3, 8, 8)
PLAN = {"features.3": 4, "classifier.4": 4}


@pytest.fixture(scope="module")
def quantized():
    return quantized_net("vgg")


@pytest.fixture(scope="module")
def good(quantized, tmp_path_factory):
    """An artifact, not to be changed."""
    out = tmp_path_factory.mktemp("good") / "artifact"
    return deploy(quantized, PLAN, BATCH, out, threads=1, verify=False, measure=False).path


@pytest.fixture
def artifact(good, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(good, tmp_path / "artifact")


def edit(artifact, change):
    file = artifact / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def test_the_rows_cover_every_quantized_tensor(quantized, good):
    rows, layers = verify(good), load(good).manifest["layers"]
    arithmetic = Arithmetic(quantized, quantized.bits(PLAN))
    compared = {row.tensor for row in rows}
    pooled = {layer["name"] for layer in layers if layer["fused_pool"]}
    for name, q in arithmetic.tensors.items():
        assert name in {"input"} | compared | pooled or q is None
    assert [row.tensor for row in rows][-1] == layers[-1]["tensor"]
    assert all(row.wrong == 0 and row.first == "" for row in rows)
    assert all(row.codes % (BATCH * np.prod(row.shape[1:])) == 0 for row in rows)
    # fake quantization only rounds otherwise; where it flips a code, later ones may follow
    assert all(np.isfinite(row.drift) and row.drift < 0.3 for row in rows) and rows[0].drift < 1e-2
    assert any(row.code == "uint4" for row in rows)


def test_the_table_has_a_line_a_row(good):
    rows = verify(good)
    lines = show(rows).splitlines()
    assert len(lines) == len(rows) + 2 and all(row.layer in line for row, line in zip(rows, lines[2:], strict=True))
    wrong = show([Row("fc", "fc", "int32", (1, 2, 1, 1), 2, 1, "image 0", 0.5)])
    assert "NO" in wrong and "5.0e-01" in wrong


@pytest.mark.parametrize("count", [BATCH, 3 * BATCH])
def test_images_of_the_user(good, count):
    for images in (noise(count, DIMS), np.random.default_rng(0).integers(0, 256, (count, *DIMS), "uint8")):
        assert {row.codes // np.prod(row.shape[1:]) for row in verify(good, images)} == {count}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (noise(BATCH + 1, DIMS), r"shape \(3, 3, 8, 8\); the artifact takes a multiple of \(2, 3, 8, 8\)"),
        (noise(BATCH, (3, 8, 9)), "shape"),
        (noise(BATCH, DIMS)[0], "shape"),
        (noise(BATCH, DIMS)[:0], "shape"),
        (noise(BATCH, DIMS).astype("float64"), "not float64: convert"),
        (torch.zeros(BATCH, *DIMS), "not Tensor: convert"),
        (np.full((BATCH, *DIMS), np.nan, "float32"), "NaN"),
        (np.full((BATCH, *DIMS), np.inf, "float32"), "infinity"),
    ],
)
def test_images_that_do_not_fit(good, images, message):
    with pytest.raises(BadInput, match=message):
        verify(good, images)


def test_a_flipped_byte_in_the_library(artifact):
    library = artifact / "model.so"
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 1
    library.write_bytes(content)
    with pytest.raises(BadInput, match="model.so is damaged"):
        verify(artifact)


def test_a_missing_reference(artifact):
    shutil.rmtree(artifact / "reference")
    with pytest.raises(BadInput, match="lacks reference/.*copy all of it"):
        verify(artifact)


def test_a_truncated_reference(artifact):
    weights = artifact / "reference" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BadInput, match="weights.safetensors is damaged or truncated"):
        verify(artifact)


def test_a_reference_of_another_checkpoint(artifact):
    save_checkpoint(quantized_net("vgg", seed=1), artifact / "reference")
    with pytest.raises(BadInput, match="not the checkpoint that the library was built from"):
        verify(artifact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["plan"]["bits"].update({"features.3": 8}), "plan gives layer features.3 8 bits, its kernel has 4"),
        (lambda m: m["plan"]["bits"].pop("features.3"), "plan gives layer features.3 8 bits, its kernel has 4"),
        (lambda m: m["plan"]["bits"].update({"features.3": 5}), "features.3: bits must be 4 or 8"),
        (lambda m: m["plan"]["bits"].update({"nope": 4}), "'nope'"),
        (lambda m: m.pop("plan"), "damaged .*'plan'.*deploy again"),
        (lambda m: m.update(plan=None), "damaged"),
        (lambda m: m.pop("provenance"), "damaged"),
        (lambda m: m.update(residual="int3"), "'int3'"),
        (lambda m: m["layers"][0].pop("output"), "damaged .*'output'"),
        (lambda m: m["layers"][0]["output"].update(code="uint5"), "damaged .*uint5"),
        (lambda m: m["layers"][0]["output"].update(layout="NHWC"), "damaged .*NHWC"),
        (lambda m: m["layers"][0].pop("tensor"), "damaged .*'tensor'"),
    ],
)
def test_an_edited_manifest(artifact, change, message):
    edit(artifact, change)
    with pytest.raises(BadInput, match=message):
        verify(artifact)


def swap_bits(manifest):
    manifest["plan"]["bits"]["features.3"] = 8
    next(layer for layer in manifest["layers"] if layer["name"] == "features.3")["bits"] = 8


def rename_a_tensor(manifest):
    next(layer for layer in manifest["layers"] if layer["name"] == "features.3")["tensor"] = "other"


def change_a_code(manifest):
    next(layer for layer in manifest["layers"] if layer["tensor"] == "features.2")["output"]["code"] = "uint8"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap_bits, "deploy again"),
        (rename_a_tensor, "no kernel for the tensor features.3"),
        (change_a_code, "deploy again"),
    ],
)
def test_a_manifest_edited_with_care_still_fails(artifact, change, message):
    edit(artifact, change)
    with pytest.raises(CheckFailed, match=message):
        verify(artifact)


def test_the_default_inputs_hold_the_extremes():
    samples = np.full((8, *DIMS), 7, "uint8")
    for batch in (1, 3, 8, 40):
        batches = list(inputs(samples, (batch, *DIMS)))
        assert all(part.shape == (batch, *DIMS) and part.dtype == np.uint8 for part in batches)
        images = np.concatenate(batches)
        assert (images[0] == 7).all() and len(np.unique(images[1])) > 50
        assert set(np.unique(images[2])) == {0, 255}
        assert (images[3] == 0).all() and (images[4] == 255).all()


def test_without_samples_noise_and_extremes_are_left():
    assert len(list(inputs(np.empty((0, *DIMS), "uint8"), (1, *DIMS)))) == 4


def test_the_first_difference_is_the_first_in_memory_order():
    expected = np.zeros((2, 3, 4, 5), "int64")
    got = expected.copy()
    got[1, 2, 3, 4], got[1, 0, 2, 1] = 9, -4
    assert first_difference(got, expected) == "image 1, channel 0, at (2, 1): the library has -4, PyTorch has 0"


def test_batches_add_up():
    first = [Row("a", "a", "uint8", (1, 2, 1, 1), 2, 0, "", 0.1), Row("b", "b", "uint8", (1, 2, 1, 1), 2, 1, "x", 0.3)]
    second = [
        Row("a", "a", "uint8", (1, 2, 1, 1), 2, 1, "y", 0.4),
        Row("b", "b", "uint8", (1, 2, 1, 1), 2, 2, "z", 0.0),
    ]
    both = merged([first, second])
    assert [(row.codes, row.wrong, row.first, row.drift) for row in both] == [(4, 1, "y", 0.4), (4, 3, "x", 0.3)]


def test_a_failure_carries_the_whole_table(good, monkeypatch):
    def compare(model, arithmetic, codes):
        model = SimpleNamespace(trace=lambda c: spoiled(model_trace(c)), manifest=model.manifest)
        return original(model, arithmetic, codes)

    def spoiled(stored):
        kept = stored["features.3"].copy()
        kept.flat[0] ^= 1
        return stored | {"features.3": kept}

    original, model_trace = module.compare, load(good).trace
    monkeypatch.setattr(module, "compare", compare)
    with pytest.raises(CheckFailed, match="layer features.3 is the first that differs") as failure:
        verify(good)
    assert [row.layer for row in failure.value.rows if row.wrong] == ["features.3"]
    assert "image 0, channel 0, at (0, 0)" in str(failure.value)
