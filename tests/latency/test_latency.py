"""The stage on a small network, from builds to the file that allocate reads."""

import json

import pytest

from hawqtvm.errors import BadInput
from hawqtvm.latency import latency
from hawqtvm.latency.__main__ import main
from tests.nets import quantized_net


def test_profiles_a_network_and_checks_the_sum(tmp_path):
    model, out = quantized_net("residual"), tmp_path / "latency.json"
    profile = latency(model, batch=2, threads=1, target="x86-64", plans=1, rounds=2, out=out)
    stored = json.loads(out.read_text())
    assert stored == json.loads(json.dumps(profile.to_json()))
    assert (stored["version"], stored["model"], stored["batch"], stored["threads"]) == (1, model.name, 2, 1)
    assert set(stored["layers"]) == {step.name for step in model.graph.layers}
    assert all(us > 0 for by_bits in stored["layers"].values() for us in by_bits.values())
    assert {edge["from"] for edge in stored["edges"]} <= set(stored["layers"])
    uniform8, uniform4, drawn = profile.checks
    assert set(uniform8.bits.values()) == {8} and 4 in uniform4.bits.values() and drawn.measured > 0
    assert stored["validation"]["plans"] == 3
    assert stored["validation"]["worst_error"] == max(abs(check.error) for check in profile.checks)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"plans": -1}, "plans -1"),
        ({"rounds": 1}, "rounds 1"),
        ({"threads": 10**6}, "threads"),
        ({"tuning_logs": "nowhere"}, "no such folder of tuning logs"),
        ({"out": "tests"}, "tests"),
        ({"target": "sm_75"}, "latency measures on processors only, not on nvidia/nvidia-t4"),
    ],
)
def test_bad_input(wrong, said):
    with pytest.raises(BadInput, match=said):
        latency(quantized_net("residual"), **{"threads": 1, "target": "x86-64"} | wrong)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--rounds", "1"], "rounds 1"),
        (["--batch", "0"], "batch 0"),
        (["--target", "sm_75"], "latency measures on processors only"),
    ],
)
def test_a_wrong_option_is_refused_before_the_long_work(given, said, monkeypatch):
    monkeypatch.setattr("hawqtvm.quantize.quantize_source", None)
    with pytest.raises(BadInput, match=said):
        main(given)
