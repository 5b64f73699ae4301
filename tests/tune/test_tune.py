"""From a network to its log, and from the log to a build; by function and by command."""

import json
from collections import Counter

import pytest

from hawqtvm.checkpoint import load_checkpoint
from hawqtvm.deploy import deploy, show
from hawqtvm.errors import BadInput
from hawqtvm.qnn.model import Arithmetic
from hawqtvm.tune import measure as measuring
from hawqtvm.tune import tune
from hawqtvm.tune.__main__ import main, networks
from hawqtvm.tune.layers import distinct_workloads
from relay_passes.pipeline import lower
from schedules.target import CPU_TARGETS, find_target
from schedules.tuning_key import tuning_key
from schedules.tuning_log import log_path, read, this_device
from tests.nets import NETS, quantized_net
from tests.relay_passes.stages import net_context


@pytest.fixture
def quick(monkeypatch):
    """One round for each candidate, and hardly a sweep."""
    monkeypatch.setattr(measuring, "PASSES", (1,))
    monkeypatch.setattr(measuring, "REPEATED", 0)
    monkeypatch.setattr(measuring, "SWEPT", 4096)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("net", NETS)
def test_the_distinct_workloads_are_those_of_the_kernels(net, bits):
    context = net_context(net, bits, target="avx512-vnni")
    found = distinct_workloads(context)
    kernels = lower(context)[1]
    wanted = Counter((tuning_key(k.choice.workload), k.layer) for k in kernels)
    assert (
        Counter((w if w == tuning_key(w) else tuning_key(w), n) for w, names in found.items() for n in names) == wanted
    )
    assert len({tuning_key(w) for w in found}) == len(found)


def test_the_digits_are_tuned_and_the_log_is_replayed(quick, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--bits", "8", "--trials", "2", "--threads", "1", "--calibration-images", "16", "--json"]) == 0
    result = capsys.readouterr()
    told = json.loads(result.out)
    target = find_target()
    path = log_path(tmp_path / "tuning_logs", this_device(), target.name, 1)
    records = list(read(path))
    assert sum(row["tried"] for row in told["workloads"]) == len(records) > len(told["workloads"])
    assert all(r.rounds and r.error is None for r in records)
    assert told["networks"]["int8"]["ms"] > 0 and not any(row["failed"] for row in told["workloads"])
    assert f"tuning log: tuning_logs/{path.parent.name}/{path.name}" in result.err

    content = path.read_bytes()
    assert main(["--bits", "8", "--trials", "2", "--threads", "1", "--calibration-images", "16"]) == 0
    shown = capsys.readouterr().out
    assert path.read_bytes() == content and shown.splitlines()[-1].startswith("all layers, int8: ")
    assert len(shown.splitlines()) == len(told["workloads"]) + 4

    quantized = load_checkpoint(tmp_path / "artifacts" / "digits.checkpoint")[0]
    built = deploy(quantized, 8, 1, "built", threads=1, measure=False)
    assert built.network["exact"]
    assert {row["config_source"] for row in built.layers} == {"measured"}
    count = len(built.layers)
    assert f"measured schedules {count} of {count}" in " ".join(show(built).split())
    manifest = json.loads((built.path / "manifest.json").read_text())
    configs = {row["config"] for row in told["workloads"]}
    assert {row["config"] for row in manifest["layers"]} <= configs
    assert {row["config_source"] for row in manifest["layers"]} == {"measured"}
    assert deploy(quantized, 8, 2, "other", threads=1, measure=False).layers[0]["config_source"] == "estimated"


def test_both_bit_widths_are_tuned_by_default_and_what_they_share_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raced = []

    def measure(devices, libraries):
        raced.append(libraries[0].built.candidate.workload)
        return [[(5.0,), (6.0,)]] * len(libraries)

    monkeypatch.setattr("hawqtvm.tune.bench.measure", measure)
    rows = tune(quantized_net("vgg"), threads=1, trials=1)
    plans = {plan: [row for row in rows if row.plan == plan] for plan in ("int8", "int4")}
    assert {name for row in plans["int8"] for name in row.layers} == {n for row in plans["int4"] for n in row.layers}
    keys = [{tuning_key(row.workload) for row in plan} for plan in plans.values()]
    assert keys[0] & keys[1] and keys[0] - keys[1]
    assert len(raced) == len(set(raced)) == len(keys[0] | keys[1])
    layers = sum(len(row.layers) for row in plans["int4"])
    assert networks(rows)["int4"] == {
        "default_ms": pytest.approx(5.5e-3 * layers),
        "ms": pytest.approx(5.5e-3 * layers),
    }


def test_a_folder_that_is_named_is_used(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quantized = quantized_net("residual")
    rows = tune(quantized, {"same.conv1": 4}, 2, threads=1, trials=1, out=tmp_path / "logs")
    layers = [layer for row in rows for layer in row.layers]
    graph = Arithmetic(quantized, quantized.bits({"same.conv1": 4})).graph
    assert {step.name for step in graph.layers} <= set(layers)
    options = {"batch": 2, "threads": 1, "measure": False, "verify": False}
    tuned = deploy(quantized, {"same.conv1": 4}, out="a", tuning_logs=tmp_path / "logs", **options)
    assert {row["config_source"] for row in tuned.layers} == {"measured"}
    plain = deploy(quantized, {"same.conv1": 4}, out="b", **options)
    assert {row["config_source"] for row in plain.layers} == {"estimated"}
    with pytest.raises(BadInput, match="no such folder of tuning logs: absent"):
        deploy(quantized, out="c", tuning_logs="absent", **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tracker": "127.0.0.1:9"}, "--tracker and --key go together"),
        ({"key": "t4"}, "--tracker and --key go together"),
        ({"trials": 0}, "trials 0"),
        ({"trials": True}, "trials True"),
        ({"batch": 0}, "batch 0"),
        ({"threads": 0}, "threads 0"),
        ({"threads": 9999}, "threads=9999"),
        ({"target": "neon"}, "neon"),
        ({"bits": {"nope": 4}}, "'nope'"),
        ({"residual": "int8"}, "'int8'"),
        ({"out": __file__}, "test_tune.py is a file; choose another place"),
    ],
)
def test_bad_values_are_refused_before_anything_is_measured(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hawqtvm.tune.bench.measure", None)
    with pytest.raises(BadInput, match=message):
        tune(**{"quantized": quantized_net("vgg"), "threads": 1} | change)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_this_machine_cannot_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hawqtvm.tune.devices.cpu_features", lambda: frozenset(["sse2"]))
    with pytest.raises(BadInput, match="this machine cannot run avx512-vnni: tune on one that can"):
        tune(quantized_net("vgg"), threads=1, target=CPU_TARGETS[0].name)
