"""The stage as a function and as a command: its file, its options, what it refuses, and how it continues."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from torch import nn

from hawqtvm.checkpoint import save_checkpoint, weights_sha256
from hawqtvm.data import load_images
from hawqtvm.errors import BadInput
from hawqtvm.models import load_model
from hawqtvm.quantize import quantize
from hawqtvm.sensitivity import METHODS, loss, sensitivity
from hawqtvm.sensitivity.__main__ import main
from hawqtvm.sensitivity.found import Found
from hawqtvm.sensitivity.groups import block_pairs, free_groups, groups
from hawqtvm.sensitivity.log import Log
from tests.nets import BATCH, NETS, noise, quantized_net, seeded
from tests.sensitivity.small import images

ROOT = Path(__file__).parents[2]
QUICK = {"probes": 3, "tolerance": 10.0}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net", NETS)
def test_every_network_has_a_value_for_each_layer_at_each_of_its_bits(net, method, tmp_path):
    model, out = quantized_net(net), tmp_path / "found" / "sensitivity.json"
    result = sensitivity(model, images(model), method, pairs=True, out=out, **QUICK)
    written = json.loads(out.read_text())
    assert written == json.loads(json.dumps(result.to_json()))
    assert (written["version"], written["model"], written["method"], written["labels"]) == (
        1,
        model.name,
        method,
        False,
    )
    assert written["checkpoint"] == weights_sha256(model) and written["data"]["images"] == 6
    fixed = set(model.graph.fixed())
    for part in (written["layers"], written["stderr"]):
        assert {name: set(values) for name, values in part.items()} == {
            step.name: {"8"} if step.name in fixed else {"4", "8"} for step in model.graph.layers
        }
        assert np.isfinite([v for values in part.values() for v in values.values()]).all()
    assert [pair["layers"] for pair in written["pairs"]] == [[a[0], b[0]] for a, b in block_pairs(model.graph)]
    if method != "hessian":
        for group in groups(model.graph):
            assert len({json.dumps(written["layers"][name]) for name in group}) == 1


def test_the_group_is_what_its_layers_add_up_to():
    model = quantized_net("residual")
    given = images(model)
    found = sensitivity(model, given, "loss")
    problem = loss.Objective(model, given, False, 0)
    tied = next(group for group in free_groups(model.graph) if len(group) == 2)
    change = loss.plan_losses(problem, tied).mean() - loss.plan_losses(problem, ()).mean()
    assert sum(found.layers[name]["4"] for name in tied) == pytest.approx(change, abs=1e-12)


def test_on_a_trained_network_the_default_ranks_layers_as_they_are_measured():
    given = load_images("digits", (1, 8, 8), 128, "train")
    model = quantize(load_model("digits").module, [given.images], "digits")
    found, measured = sensitivity(model, given), sensitivity(model, given, "loss")
    assert found.method == "fisher" and found.labels is False
    both = [[sum(s.layers[n]["4"] for n in g) for g in free_groups(model.graph)] for s in (found, measured)]
    assert spearmanr(*both).statistic > 0.9
    assert 0.7 < np.median(np.divide(*both)) < 1.4


@pytest.mark.parametrize("method", METHODS)
def test_a_second_call_measures_nothing_again(method, tmp_path, monkeypatch):
    model = quantized_net("residual")
    first = sensitivity(model, images(model), method, pairs=True, out=tmp_path / "a.json", **QUICK)
    content = (tmp_path / "a.json.log").read_bytes()
    for name in ("fisher.batch_scores", "hessian.probe", "loss.plan_losses"):
        monkeypatch.setattr(f"hawqtvm.sensitivity.{name}", None)
    assert sensitivity(model, images(model), method, pairs=True, out=tmp_path / "a.json", **QUICK) == first
    assert (tmp_path / "a.json.log").read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"labels": True},
        {"images": images(quantized_net("residual"), 5)},
        {"quantized": quantized_net("residual", seed=1)},
    ],
)
def test_what_values_depend_on_is_measured_anew(change, tmp_path):
    model = quantized_net("residual")
    common = {"quantized": model, "images": images(model), "method": "loss", "out": tmp_path / "a.json"}
    sensitivity(**common)
    again = sensitivity(**(common | change))
    lines = (tmp_path / "a.json.log").read_text().splitlines()
    assert len(lines) == 2 * (1 + len(free_groups(model.graph)))
    assert again == sensitivity(**(common | change | {"out": tmp_path / "fresh.json"}))


def test_a_damaged_log_costs_only_what_is_damaged(tmp_path):
    path = tmp_path / "log"
    log = Log(path, "key")
    assert [log.get(item, lambda i=item: [len(i) / 3]) for item in ("a", "bb")] == [[1 / 3], [2 / 3]]
    Log(path, "other").get("a", lambda: [7])
    path.write_bytes(b'[]\n\xff\n{"key": "key"}\n' + path.read_bytes() + b'{"key": "key", "item": "ccc", "val')
    log = Log(path, "key")
    assert log.found == {"a": [1 / 3], "bb": [2 / 3]}
    assert log.get("ccc", lambda: [1.0]) == [1.0] and Log(path, "key").found == log.found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "trace"}, "method 'trace': choose fisher, hessian, loss"),
        ({"tolerance": 0.0}, "tolerance 0.0"),
        ({"tolerance": float("nan")}, "tolerance nan"),
        ({"probes": 1}, "probes 1: give a whole number, 2 or more"),
        ({"seed": -1}, "seed -1"),
        ({"out": Path(__file__).parent}, "is a directory; choose another place"),
        ({"out": Path(__file__) / "a.json"}, "is a file; choose another place"),
        ({"labels": True, "images": images(quantized_net("vgg"), labels=False)}, "noise has no labels: leave out"),
        ({"images": images(quantized_net("vgg"), 1)}, "1 image; a standard error needs 2 or more"),
        ({"images": images(quantized_net("residual"))}, r"shape \(6, 3, 10, 10\)"),
        (
            {"labels": True, "images": replace(images(quantized_net("vgg")), labels=np.full(6, 6))},
            "noise has label 6, VggNet logits for 0 to 5: give",
        ),
        (
            {"labels": True, "quantized": quantized_net("joined output")},
            "JoinedOutputNet has logits for 9 positions, noise a label an image",
        ),
    ],
)
def test_bad_values_are_refused_before_anything_is_measured(change, message, monkeypatch):
    monkeypatch.setattr("hawqtvm.sensitivity.log.append_lines", None)
    model = quantized_net("vgg")
    with pytest.raises(BadInput, match=message):
        sensitivity(**{"quantized": model, "images": images(model)} | change)


def test_networks_that_have_no_such_loss_are_refused():
    dims = (3, 4, 4)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 1))
    single = quantize(seeded(net), [noise(BATCH, dims)], "single")
    with pytest.raises(BadInput, match="single has one logit"):
        sensitivity(single, images(single, labels=False))
    model = quantized_net("vgg")
    huge = replace(images(model), images=np.full((2, *model.graph.input_dims), 3e38, "float32"), labels=None)
    with pytest.raises(BadInput, match="the logits of VggNet on noise are not finite"):
        sensitivity(model, huge)


def test_a_value_that_is_not_finite_is_refused_by_name():
    with pytest.raises(BadInput, match="layer same.conv1: its sensitivity is not finite"):
        Found().add(("same.conv1",), 4, np.array([1.0, np.inf]))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's directory with a quantized checkpoint and images."""
    model = quantized_net("residual")
    save_checkpoint(model, tmp_path / "net.checkpoint")
    given = images(model, 12)
    np.savez(tmp_path / "images.npz", images=given.images, labels=given.labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMON = ["--checkpoint", "net.checkpoint", "--data", "images.npz"]


def test_the_command_prints_its_result_and_leaves_its_file(home, capsys):
    assert main([*COMMON, "--pairs", "--labels", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((home / "sensitivity.json").read_text())
    assert (printed["method"], printed["labels"], printed["data"]["images"]) == ("fisher", True, 12)
    assert main([*COMMON, "--method", "loss", "--samples", "5", "--seed", "3", "--pairs", "--out", "b.json"]) == 0
    result = json.loads((home / "b.json").read_text())
    assert result["data"]["images"] == 5 and result["provenance"]["seed"] == 3 and result["labels"] is False
    shown = capsys.readouterr()
    layers, pairs, last = shown.out.split("\n\n")
    rows = [line.split() for line in layers.splitlines()[2:]]
    assert [float(row[1]) for row in rows if row[1] != "-"] == pytest.approx(
        sorted((v["4"] for v in result["layers"].values() if "4" in v), reverse=True), rel=1e-3
    )
    assert {row[0] for row in rows if row[1] == "-"} == {"stem.0", "fc"}
    assert len(pairs.splitlines()) == 4 and "increase of divergence from the float model's output" in last
    assert "sensitivity: b.json" in shown.err and "plans: 5" in shown.err
    assert sorted(p.name for p in home.iterdir()) == sorted(
        ["b.json", "b.json.log", "images.npz", "net.checkpoint", "sensitivity.json", "sensitivity.json.log"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "1"], "--samples 1: give a number, 2 or more"),
        (["--out", "net.checkpoint"], "is a directory"),
        (["--probes", "0"], "probes 0"),
        (["--model", "digits"], "is a checkpoint of ResidualNet, not of digits"),
    ],
)
def test_the_command_refuses(home, arguments, message):
    with pytest.raises(BadInput, match=message):
        main([*COMMON, *arguments])
    assert not (home / "sensitivity.json").exists()


def test_a_model_without_data_is_named(home, capsys):
    with pytest.raises(BadInput, match="--data is needed to calibrate ResidualNet"):
        main(COMMON[:2])


def test_a_killed_run_continues(home):
    """Killed between two probes or in one; the next run measures only what is missing and finds the same."""

    def start(probes: int, out: str) -> subprocess.Popen:
        options = ["--method", "hessian", "--tolerance", "1e-9", "--probes", str(probes), "--out", out]
        arguments = [sys.executable, "-m", "hawqtvm.sensitivity", *COMMON, *options]
        environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
        return subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)

    log, killed = home / "a.json.log", start(100_000, "a.json")
    while not log.exists() or log.read_bytes().count(b"\n") < 4:
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (home / "a.json").exists() and killed.returncode == -signal.SIGKILL
    before = log.read_bytes()
    done = before.count(b"\n")
    for out in ("a.json", "fresh.json"):
        running = start(done + 3, out)
        assert "warning: the trace of" in running.communicate()[1].decode() and running.returncode == 0
    assert log.read_bytes().startswith(before)
    assert len(Log(log, json.loads(before.splitlines()[0])["key"]).found) == done + 3
    assert (home / "a.json").read_bytes() == (home / "fresh.json").read_bytes()
