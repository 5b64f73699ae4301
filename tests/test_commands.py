"""The commands as a user meets them: what they print where, what they leave behind, and how they fail."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hawqtvm.models import DIGITS_CHECKPOINT

ROOT = Path(__file__).parents[1]
PLAN = ROOT / "hawqtvm" / "models" / "digits-mixed.json"
TIMEOUT = 300


def command(stage, *arguments):
    return [sys.executable, "-m", f"hawqtvm.{stage}", *map(str, arguments)]


def environment():
    return dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")


def run(where, stage, *arguments):
    return subprocess.run(
        command(stage, *arguments), cwd=where, env=environment(), capture_output=True, text=True, timeout=TIMEOUT
    )


def files(where):
    return sorted(str(p.relative_to(where)) for p in where.rglob("*"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A user's directory in which the digits model was deployed with its mixed plan; not to be changed."""
    where = tmp_path_factory.mktemp("home")
    done = run(where, "deploy", "--bits", PLAN, "--batch", 4, "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    (where / "deployed.json").write_text(done.stdout)
    (where / "progress.txt").write_text(done.stderr)
    return where


@pytest.fixture(scope="module")
def artifact(home):
    return home / "artifacts" / "digits-mixed"


def test_deploy_prints_one_object_and_shows_progress_elsewhere(home, artifact):
    result = json.loads((home / "deployed.json").read_text())
    assert set(result) == {"artifact", "network", "layers"} and home / result["artifact"] == artifact
    network = result["network"]
    assert network["exact"] is True and network["weights"] == "trained" and network["batch"] == 4
    assert network["accuracy_int"] > 98 and network["ms"] > 0
    assert {row["bits"] for row in result["layers"]} == {4, 8, None}
    progress = (home / "progress.txt").read_text()
    for part in ("calibration batches: ", "kernels: ", "compiling ", "verified batches: "):
        assert part in progress
    assert not any(line.endswith(" ") for line in progress.splitlines())
    assert files(home / "artifacts") == files_of("digits-mixed", "digits.checkpoint")


def files_of(artifact, checkpoint):
    inner = ["checkpoint.json", "weights.safetensors"]
    parts = [artifact, f"{artifact}/manifest.json", f"{artifact}/model.so", f"{artifact}/reference"]
    parts += [f"{artifact}/reference/{name}" for name in inner]
    return sorted([*parts, checkpoint, *(f"{checkpoint}/{name}" for name in inner)])


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_a_second_run_reuses_the_checkpoint_and_prints_tables(home, tmp_path, bits):
    shutil.copytree(home / "artifacts" / "digits.checkpoint", tmp_path / "digits.checkpoint")
    done = run(tmp_path, "deploy", "--bits", bits, "--threads", 1, "--out", f"int{bits}")
    assert done.returncode == 0, done.stderr
    assert "quantized already: digits.checkpoint" in done.stderr and "calibration" not in done.stderr
    layers, network = done.stdout.split("\n\n")
    conv = next(line for line in layers.splitlines() if line.startswith("layer2.1.conv1 "))
    assert conv.split()[1:4] == ["conv2d", "1x64x4x4", str(bits)] and conv.endswith("yes")
    assert "yes, every code of every tensor" in network and f"int{bits}" in network


def test_verify_passes_and_fails_with_its_exit_codes(artifact, tmp_path):
    good = run(tmp_path, "verify", artifact, "--json")
    result = json.loads(good.stdout)
    assert good.returncode == 0 and result["exact"] is True and result["error"] is None
    assert [row["layer"] for row in result["layers"]][0] == "conv1" and all(r["wrong"] == 0 for r in result["layers"])
    assert "codes of" in good.stderr

    # the library of other weights, under a manifest that says so little
    edited = shutil.copytree(artifact, tmp_path / "edited")
    spoil_reference(edited)
    bad = run(tmp_path, "verify", edited, "--json")
    result = json.loads(bad.stdout)
    assert bad.returncode == 1 and result["exact"] is False and result["error"] in bad.stderr
    assert "layer layer1.0.conv1 is the first that differs" in result["error"]
    shown = run(tmp_path, "verify", edited)
    assert shown.returncode == 1 and " NO " in shown.stdout and shown.stderr.splitlines()[-1].startswith("error: layer")
    assert "Traceback" not in shown.stderr


def spoil_reference(artifact):
    """Another weight in the artifact's reference, all hashes as if it belonged there."""
    from hawqtvm.checkpoint import load_checkpoint, save_checkpoint

    quantized, _ = load_checkpoint(artifact / "reference")
    quantized.layers["layer1.0.conv1"].codes[4].flat[0] ^= 1
    digest = save_checkpoint(quantized, artifact / "reference")
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["provenance"]["checkpoint_sha256"] = digest
    (artifact / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.slow
def test_quantize_then_deploy_its_checkpoint(tmp_path):
    done = run(tmp_path, "quantize", "--out", "q", "--calibration-images", 16, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["model"] == "digits" and len(result["sha256"]) == 64 and "fc" in result["fixed"]
    plan = {"version": 1, "model": "digits", "checkpoint": result["sha256"], "bits": {"layer1.0.conv1": 4}}
    (tmp_path / "mine.json").write_text(json.dumps(plan))
    done = run(tmp_path, "deploy", "--checkpoint", "q", "--bits", "mine.json", "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["artifact"] == "artifacts/digits-mine"


@pytest.mark.parametrize("stage", ["allocate", "deploy", "quantize", "tune", "verify"])
def test_help_is_fast_and_complete(tmp_path, stage):
    started = time.monotonic()
    done = run(tmp_path, stage, "--help")
    assert time.monotonic() - started < 2
    assert done.returncode == 0 and done.stderr == "" and "--json" in done.stdout
    text = f"import hawqtvm.{stage}, sys; sys.exit('torch' in sys.modules or 'tvm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], env=environment(), timeout=TIMEOUT).returncode == 0


def plan(**fields):
    return json.dumps({"version": 1, "model": "digits", "bits": {}} | fields)


def bad_files(where):
    """Everything that can be wrong with a file, by name."""
    texts = {
        "cut.json": plan()[:20],
        "list.json": "[]",
        "five.json": plan(bits={"layer1.0.conv1": 5}),
        "true.json": plan(bits={"layer1.0.conv1": True}),
        "unknown.json": plan(bits={"layer9.conv1": 4}),
        "fixed.json": plan(bits={"conv1": 4}),
        "resnet.json": plan(model="resnet18"),
        "stranger.json": plan(model="stranger"),
        "other.json": plan(checkpoint="ab" * 32),
        "new.json": plan(version=2),
        "file": "",
    }
    for name, text in texts.items():
        (where / name).write_text(text)
    content = DIGITS_CHECKPOINT.read_bytes()
    (where / "cut.safetensors").write_bytes(content[: len(content) // 2])
    weights = load_file(DIGITS_CHECKPOINT)
    save_file({**weights, "fc.bias": np.full_like(weights["fc.bias"], np.nan)}, where / "nan.safetensors")
    (where / "empty").mkdir()
    np.savez(where / "shape.npz", images=np.zeros((4, 1, 9, 9), "float32"))
    np.savez(where / "nan.npz", images=np.full((4, 1, 8, 8), np.nan, "float32"))


@pytest.fixture(scope="module")
def wrong(home, tmp_path_factory):
    """A directory of unusable files beside a good quantized checkpoint."""
    where = tmp_path_factory.mktemp("wrong")
    bad_files(where)
    for name in ("q", "cut"):
        shutil.copytree(home / "artifacts" / "digits.checkpoint", where / name)
    weights = where / "cut" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    return where


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--bits absent.json", "no such plan: absent.json; give a plan.json, 4 or 8"),
        ("--bits empty", "cannot read the plan empty: Is a directory"),
        ("--bits cut.json", "cut.json is not JSON"),
        ("--bits list.json", "list.json is not a plan"),
        ("--bits new.json", "version 2; this hawqtvm reads version 1"),
        ("--bits five.json", "five.json: layer layer1.0.conv1 has bits 5; bits must be 4 or 8"),
        ("--bits true.json", "layer1.0.conv1 has bits True"),
        ("--bits 5", "--bits 5: bits must be 4 or 8"),
        ("--bits unknown.json --checkpoint q", "'layer9.conv1', which digits does not have; its layers: conv1"),
        ("--bits fixed.json --checkpoint q", "conv1 reads the input"),
        ("--bits other.json --checkpoint q", "made for a checkpoint with sha256 abababababab"),
        ("--bits resnet.json --model digits", "plan for resnet18, not for digits; give --model resnet18"),
        ("--bits resnet.json --checkpoint q", "plan for resnet18, not for digits"),
        ("--bits stranger.json", "model 'stranger' is unknown: choose one of digits, resnet18"),
        ("--model stranger", "model 'stranger' is unknown"),
        ("--model resnet18 --checkpoint q", "q is a checkpoint of digits, not of resnet18"),
        ("--model absent:Net --input 3,8,8", "'absent:Net' cannot be made"),
        ("--model absent:Net", "--input C,H,W is needed"),
        ("--checkpoint absent.safetensors", "absent.safetensors does not exist"),
        ("--checkpoint absent", "absent does not exist"),
        ("--checkpoint file", "file is of an unknown kind: give one of .safetensors"),
        ("--checkpoint cut.safetensors", "cut.safetensors cannot be read"),
        ("--checkpoint nan.safetensors", "tensor fc.bias holds NaN"),
        ("--checkpoint cut", "cut/weights.safetensors is damaged or truncated"),
        ("--checkpoint empty", "no such file: empty/checkpoint.json"),
        ("--data empty", "empty holds no images"),
        ("--data shape.npz", "(4, 1, 9, 9), but the model takes (N, 1, 8, 8)"),
        ("--data nan.npz", "NaN"),
        ("--input garbage", "--input garbage: give channels, height and width"),
        ("--input 3,0,8", "--input 3,0,8"),
        ("--input 3,8,8 --model digits", "--input is for a model of your own"),
        ("--calibration-images 0", "--calibration-images 0: give a number, 1 or more"),
        ("--target pentium", 'unknown target "pentium"; choose native, avx512-vnni'),
        ("--target sm_70", 'unknown target "sm_70"; choose native, avx512-vnni'),
        ("--target sm_75 --latency 0.5", "--latency measures on processors only, not on nvidia/nvidia-t4"),
        ("--target sm_75 --batch 0", "batch 0: give a whole number, 1 or more"),
        ("--batch 0", "batch 0: give a whole number, 1 or more"),
        ("--batch x", "argument --batch: invalid int value: 'x'; see python -m hawqtvm.deploy --help"),
        ("--threads 0", "threads 0: give a whole number, 1 or more"),
        ("--residual int4", "invalid choice: 'int4'"),
        ("--tuning-logs absent", "no such folder of tuning logs: absent; python -m hawqtvm.tune writes one"),
        ("--out file", "file: a file has that name; choose another"),
        ("--out file/deeper", "file/deeper: "),
        ("--out q", "q is not empty and not a hawqtvm-artifact; choose another directory"),
        ("--nonsense", "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(wrong, arguments, message):
    before = files(wrong)
    done = run(wrong, "deploy", *arguments.split())
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert message in done.stderr
    assert files(wrong) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--bits 5", "--bits 5: bits must be 4 or 8"),
        ("--bits fixed.json --checkpoint q", "conv1 reads the input"),
        ("--bits resnet.json --model digits", "plan for resnet18, not for digits; give --model resnet18"),
        ("--model stranger", "model 'stranger' is unknown"),
        ("--trials 0", "trials 0: give a whole number, 1 or more"),
        ("--trials x", "argument --trials: invalid int value: 'x'; see python -m hawqtvm.tune --help"),
        ("--batch 0", "batch 0: give a whole number, 1 or more"),
        ("--threads 0", "threads 0: give a whole number, 1 or more"),
        ("--threads 9999", "threads=9999: give a number from 1 to "),
        ("--target pentium", 'unknown target "pentium"; choose native, avx512-vnni'),
        ("--target nvidia/nvidia-t4", "tune measures on processors only, not on nvidia/nvidia-t4"),
        ("--residual int4", "invalid choice: 'int4'"),
        ("--out file", "file is a file; choose another place"),
    ],
)
def test_bad_input_of_tune_is_one_line_and_changes_nothing(wrong, arguments, message):
    before = files(wrong)
    done = run(wrong, "tune", *arguments.split())
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert message in done.stderr
    assert files(wrong) == before


def test_quantize_refuses_what_deploy_wrote(home, artifact):
    done = run(home, "quantize", "--checkpoint", "artifacts/digits.checkpoint", "--out", "again")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "artifacts/digits.checkpoint is quantized already; give float weights" in done.stderr
    before = files(home)
    done = run(home, "quantize", "--out", artifact)
    assert done.returncode == 2 and "not a hawqtvm-checkpoint" in done.stderr and files(home) == before
    assert done.stderr.count("\n") == 1


def test_verify_of_what_is_no_artifact(wrong):
    for name, message in (("absent", "no such artifact directory"), ("file", "no such"), ("q", "no such file")):
        done = run(wrong, "verify", name, "--json")
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGTERM, "calibration batches: "),
        pytest.param(signal.SIGINT, "kernels: ", marks=pytest.mark.slow),
        (signal.SIGINT, "compiling "),
    ],
)
def test_an_interrupt_leaves_nothing_half_written(tmp_path, number, moment):
    process = subprocess.Popen(
        command("deploy", "--bits", PLAN, "--threads", 1, "--calibration-images", 8, "--out", "out/a"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        seen = []
        for line in process.stderr:
            seen.append(line)
            if line.startswith(moment):
                break
        process.send_signal(number)
        out, rest = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 130, (seen, rest)
    assert rest.splitlines()[-1] == "interrupted; nothing was left half-written"
    assert out == "" and "Traceback" not in rest
    whole = ["out", "out/digits.checkpoint", *(f"out/digits.checkpoint/{n}" for n in files_of("a", "c")[-2:])]
    assert files(tmp_path) in ([], [name.replace("/c/", "/") for name in whole])


@pytest.mark.slow
def test_random_weights_say_so_in_both_outputs(tmp_path):
    for arguments in ((), ("--json",)):
        done = run(tmp_path, "deploy", "--model", "resnet18", "--batch", 1, *arguments)
        assert done.returncode == 0, done.stderr
        assert "random weights: speed only" in done.stdout and "random weights: speed only" in done.stderr
        assert done.stderr.isascii()
    network = json.loads(done.stdout)["network"]
    assert network["weights"] == "random weights: speed only" and network["accuracy_int"] is None
    assert network["exact"] is True


def test_a_module_of_the_users_own_from_the_shell(tmp_path):
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n\n\n"
        "def small():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),\n"
        "                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))\n"
    )
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8), "uint8")
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(12) % 4)
    (tmp_path / "plan.json").write_text('{"version": 1, "model": "mynet:small", "bits": {"2": 4}}')
    options = ("--input", "3,8,8", "--data", "images.npz", "--threads", 1, "--json")
    done = run(tmp_path, "deploy", "--bits", "plan.json", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["artifact"] == "artifacts/mynet-small-plan" and result["network"]["accuracy_int"] is not None
    assert run(tmp_path, "verify", result["artifact"]).returncode == 0
