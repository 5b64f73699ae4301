"""What deploy writes runs, equals PyTorch, says what it is, and appears whole or not at all."""

import errno
import json
import os
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import hawqtvm.compile
import hawqtvm.verify
from hawqtvm.checkpoint import load_checkpoint, save_checkpoint, weights_sha256
from hawqtvm.data import Images
from hawqtvm.deploy import deploy, show
from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.plan import Plan
from hawqtvm.qnn import reference
from hawqtvm.qnn.model import RESIDUALS, Arithmetic
from hawqtvm.runtime import cpu, load
from hawqtvm.verify import verify
from schedules.target import CPU_TARGETS, find_target
from tests.needs import needs_level
from tests.nets import NETS, noise

MIXED = {"same.conv1": 4, "same.conv2": 4, "down.conv2": 4}
QUICK = {"threads": 1, "measure": False}
CASES = [
    ("residual", MIXED, 3, "int16", "native"),
    ("residual", 4, 1, "int32", "avx2"),
    ("residual", 8, 1, "uint8", "x86-64"),
    ("branches", 4, 3, "int16", "native"),
    ("pooled output", 8, 1, "int32", "avx2"),
    ("pools", Plan({"pointwise.0": 4, "grouped": 4}, "mine"), 1, "uint8", "native"),
    ("pools", 4, 3, "int16", "x86-64"),
    ("vgg", 8, 3, "int16", "x86-64"),
    ("vgg", {"features.3": 4, "classifier.4": np.int64(4)}, 1, "int16", "avx2"),
    ("pooled output", 4, 1, "uint8", "native"),
]
ALL = [(n, b, 2, r, t.name) for n, b, r, t in product(NETS, (8, 4), RESIDUALS, CPU_TARGETS)]


@pytest.fixture(scope="module")
def built(vgg, tmp_path_factory):
    """A measured and verified deployment, not to be changed."""
    labelled = Images(noise(5, vgg.graph.input_dims), np.arange(5), "noise")
    out = tmp_path_factory.mktemp("built") / "artifact"
    return deploy(vgg, {"features.3": 4}, 2, out, threads=1, labelled=labelled)


def check_runs(quantized, bits, batch, residual, target, out):
    needs_level(find_target(target))
    deployment = deploy(quantized, bits, batch, out, target=target, residual=residual, **QUICK)
    model = load(deployment)
    images = noise(batch, quantized.graph.input_dims, seed=7)
    plan = bits.bits if isinstance(bits, Plan) else bits
    arithmetic = Arithmetic(quantized, quantized.bits(plan), residual)
    codes = reference.quantize_input(arithmetic.tensors["input"], images)
    expected = reference.logits(arithmetic, codes)
    np.testing.assert_array_equal(model(codes), expected)
    np.testing.assert_array_equal(model(images), expected)
    assert all(row["exact"] for row in deployment.layers if row["op"] in ("qnn.conv2d", "qnn.dense"))
    assert deployment.network["exact"] and deployment.network["residual"] == residual


@pytest.mark.parametrize(("name", "bits", "batch", "residual", "target"), CASES)
def test_an_artifact_equals_the_integer_model(nets, tmp_path, name, bits, batch, residual, target):
    check_runs(nets(name), bits, batch, residual, target, tmp_path / "artifact")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bits", "batch", "residual", "target"), ALL)
def test_every_combination_equals_the_integer_model(nets, tmp_path, name, bits, batch, residual, target):
    check_runs(nets(name), bits, batch, residual, target, tmp_path / "artifact")


def test_the_manifest_says_what_was_built(vgg, built):
    manifest = json.loads((built.path / "manifest.json").read_text())
    names = [step.name for step in vgg.graph.layers]
    assert manifest["model"] == vgg.name and manifest["threads"] == 1 and manifest["residual"] == "int16"
    assert manifest["plan"]["bits"] == {name: 4 if name == "features.3" else 8 for name in names}
    assert manifest["provenance"]["checkpoint_sha256"] == weights_sha256(vgg)
    assert manifest["provenance"]["tvm"] and manifest["provenance"]["built"].endswith("Z")
    assert manifest["input"]["shape"] == [2, 3, 8, 8] and manifest["output"]["shape"] == [2, 6]
    kernels = {row["name"]: row for row in manifest["layers"]}
    assert {name: kernels[name]["bits"] for name in names} == manifest["plan"]["bits"]
    # batch 2, 4x4 positions, 16 channels, 3x3 taps of 8 channels
    assert kernels["features.3"]["macs"] == 2 * 4 * 4 * 16 * 9 * 8
    window = {"kernel": [3, 3], "strides": [1, 1], "groups": 1}
    assert kernels["features.3"]["geometry"] == {"x_dims": [2, 8, 4, 4], **window}
    library = built.path / manifest["library"]
    assert manifest["size"]["library"] == library.stat().st_size
    assert manifest["size"]["expanded_weights"] == built.network["expanded_weight_bytes"]
    weights = {name: layer.weight.size for name, layer in vgg.layers.items()}
    assert manifest["size"]["weights"] == sum(weights.values()) - weights["features.3"] // 2
    assert manifest["measured"] == built.network


def test_a_deployment_is_measured_verified_and_scored(vgg, built):
    network = built.network
    assert network["ms"] > 0 and network["images_per_second"] == pytest.approx(2e3 / network["ms"])
    assert abs(sum(row["share"] for row in built.layers) - 1) < 1e-9
    assert all(row["ms"] > 0 for row in built.layers)
    images = noise(5, vgg.graph.input_dims)
    arithmetic = Arithmetic(vgg, vgg.bits({"features.3": 4}))
    codes = reference.quantize_input(arithmetic.tensors["input"], images)
    right = reference.logits(arithmetic, codes).argmax(1) == np.arange(5)
    assert network["accuracy_int"] == pytest.approx(100 * right.mean())
    right = reference.float_logits(vgg, images).argmax(1) == np.arange(5)
    assert network["accuracy_float"] == pytest.approx(100 * right.mean())


def test_the_tables_line_up_and_name_everything(vgg, built):
    layers, network = show(built).split("\n\n")
    for step in vgg.graph.layers:
        assert sum(line.startswith(step.name + " ") for line in layers.splitlines()) == 1
    assert "yes, every code of every tensor" in network and " ms\n" in network and str(built.path) in network
    assert not any(line.endswith(" ") for line in show(built).splitlines())


def test_others_may_read_the_artifact(built):
    """Who may read one file may read all: none keeps the mode of a temporary."""
    modes = {p.stat().st_mode & 0o444 for p in built.path.rglob("*") if p.is_file()}
    assert len(modes) == 1


def test_the_reference_is_the_quantized_model(vgg, built, tmp_path):
    again, identity = load_checkpoint(built.path / "reference")
    assert identity.sha256 == weights_sha256(vgg) == weights_sha256(again) == save_checkpoint(again, tmp_path / "c")


@pytest.mark.parametrize(("verified", "measured"), [(False, False), (False, True), (True, False)])
def test_what_was_not_asked_for_is_not_shown_as_done(vgg, tmp_path, verified, measured, capfd):
    done = deploy(vgg, 8, 1, tmp_path / "a", threads=1, verify=verified, measure=measured)
    assert done.network["exact"] is (True if verified else None)
    assert (done.network["ms"] is None) is not measured
    text = show(done)
    assert ("not verified" in text) is not verified
    assert text.count("not measured") == (2 if measured else 4)
    assert "verified" not in capfd.readouterr().err or verified
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch 0"),
        ({"batch": True}, "batch True"),
        ({"batch": 2.0}, "batch 2.0"),
        ({"threads": 0}, "threads 0"),
        ({"threads": "2"}, "threads '2'"),
        ({"residual": "int8"}, "'int8'; choose int16, int32, uint8"),
        ({"activations": "nibbles"}, "activations 'nibbles': choose bytes or words"),
        ({"target": "neon"}, "neon.*avx512-vnni, avx-vnni, avx2, x86-64"),
        ({"bits": 5}, "bits must be 4 or 8.*not 5"),
        ({"bits": "plan.json"}, "bits must be 4 or 8.*not 'plan.json'"),
        ({"bits": {"features.3": 5}}, "features.3: bits must be 4 or 8, not 5"),
        ({"bits": {"nope": 4}}, "'nope'.*its layers: features.0"),
        ({"bits": {"features.0": 4}}, "features.0 reads the input"),
        ({"bits": Plan({}, "p", model="resnet18")}, "plan for resnet18, not for VggNet"),
        ({"bits": Plan({}, "p", checkpoint="0" * 64)}, "made for a checkpoint with sha256 000000000000"),
        ({"out": "/proc/nowhere"}, "cannot write /proc/nowhere"),
    ],
)
def test_bad_values_are_refused_before_anything_is_built(vgg, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hawqtvm.compile, "compile_library", None)
    with pytest.raises(BadInput, match=message):
        deploy(**{"quantized": vgg, "out": tmp_path / "a"} | change)
    assert list(tmp_path.iterdir()) == []


def test_tied_layers_share_their_bits(nets, tmp_path):
    with pytest.raises(BadInput, match=r"down.conv1=4, down.downsample.0=8|down.downsample.0=8, down.conv1=4"):
        deploy(nets("residual"), {"down.conv1": 4}, out=tmp_path / "a")


def test_a_plan_made_for_another_device_is_taken_with_a_warning(vgg, tmp_path, capfd):
    plan = Plan({"features.3": 4}, "mine", provenance={"device": "another-cpu-8-cores", "batch": 1})
    deploy(vgg, plan, 1, tmp_path / "a", verify=False, **QUICK)
    assert "mine was made for device another-cpu-8-cores (here " in capfd.readouterr().err


def test_a_plan_for_this_checkpoint_is_taken(vgg, tmp_path):
    plan = Plan({}, "p", vgg.name, weights_sha256(vgg))
    deploy(vgg, plan, out=tmp_path / "a", verify=False, **QUICK)


@pytest.mark.parametrize("kind", ["foreign", "file", "under a file", "checkpoint"])
def test_a_place_that_is_taken_is_left_as_it_is(vgg, tmp_path, kind):
    out = tmp_path / "taken"
    if kind == "foreign":
        out.mkdir()
        (out / "manifest.json").write_text('{"name": "a web page"}')
    elif kind == "checkpoint":
        save_checkpoint(vgg, out)
    else:
        out.write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(BadInput, match=f"{out}.*choose another"):
        deploy(vgg, 8, out=out / "deeper" if kind == "under a file" else out)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def half_a_library(error):
    def link(executable, library):
        library.write_bytes(b"half")
        raise error

    return link


def failing(error):
    def fail(*_):
        raise error

    return fail


@pytest.mark.parametrize(
    ("where", "fault", "shown"),
    [
        ((hawqtvm.compile, "lower"), failing(KeyboardInterrupt()), KeyboardInterrupt),
        ((hawqtvm.compile, "link"), half_a_library(KeyboardInterrupt()), KeyboardInterrupt),
        ((hawqtvm.compile, "link"), half_a_library(OSError(errno.ENOSPC, "No space left on device")), BadInput),
        ((hawqtvm.verify, "compare"), failing(KeyboardInterrupt()), KeyboardInterrupt),
        ((hawqtvm.verify, "compare"), failing(CheckFailed("differs")), CheckFailed),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_a_build_that_ends_early_leaves_nothing(vgg, built, tmp_path, monkeypatch, where, fault, shown, older):
    out = tmp_path / "a"
    if older:
        out.mkdir()
        (out / "manifest.json").write_bytes((built.path / "manifest.json").read_bytes())
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    monkeypatch.setattr(*where, fault)
    with pytest.raises(shown):
        deploy(vgg, 8, out=out, **QUICK)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert list(tmp_path.iterdir()) == ([out] if older else [])


def test_a_newer_artifact_takes_the_place_of_an_older(nets, tmp_path):
    codes, results = noise(1, (3, 8, 8)), []
    for bits in (8, 4):
        model = load(deploy(nets("pooled output"), bits, 1, tmp_path / "a", verify=False, **QUICK))
        results.append((model.manifest["plan"]["name"], model(codes)))
    assert [name for name, _ in results] == ["int8", "int4"]
    assert (results[0][1] != results[1][1]).any()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_without_a_place_it_goes_to_artifacts(vgg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = deploy(replace(vgg, name="my.nets:Vgg"), 8, verify=False, **QUICK)
    assert done.path == Path("artifacts/my.nets-Vgg-int8")
    assert load(done.path).batch == 1


def test_a_target_this_machine_lacks_is_built_and_not_run(vgg, tmp_path, monkeypatch, capsys):
    needs_level(find_target("avx2"))
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "cpu_features", lambda: frozenset({"sse2"}))
        done = deploy(vgg, 8, 1, tmp_path / "a", target="avx2", labelled=Images(noise(1, (3, 8, 8)), np.zeros(1), "n"))
        assert done.network["exact"] is done.network["ms"] is done.network["accuracy_int"] is None
        assert "cannot run avx2: built, neither verified nor measured" in capsys.readouterr().err
        assert "not verified" in show(done)
        with pytest.raises(BadInput, match="needs a CPU with .*avx2"):
            load(done)
    assert verify(done)


def test_more_threads_than_this_machine_has(vgg, tmp_path):
    """The kernels are shaped for them; they run on what there is."""
    done = deploy(vgg, 8, 1, tmp_path / "a", threads=64, measure=False)
    assert done.network["threads"] == 64 and done.network["exact"]
    assert load(done).threads <= os.cpu_count()


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        (None, "no C compiler found.*install gcc"),
        ("/bin/false", "/bin/false cannot link"),
        ("/nowhere/cc", "cannot link"),
    ],
)
def test_without_a_c_compiler_the_remedy_is_named(vgg, tmp_path, monkeypatch, compiler, message):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if compiler:
        monkeypatch.setenv("CXX", compiler)
    with pytest.raises(BadInput, match=message):
        deploy(vgg, 8, 1, tmp_path / "a", **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_nan_and_infinity_do_no_harm(built):
    model = load(built)
    images = np.zeros(model.input_shape, "float32")
    images[0, :, 1, 1] = np.nan, np.inf, -np.inf
    logits = model(images)
    assert logits.dtype == np.int32 and logits.shape == (2, 6)
    np.testing.assert_array_equal(logits[1], model(np.zeros(model.input_shape, "float32"))[1])
