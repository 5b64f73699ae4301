"""Bits chosen under limits: which stages run, on what, and what the plan says."""

import json
from argparse import Namespace

import pytest

import hawqtvm.latency
import hawqtvm.tune
from hawqtvm.checkpoint import weights_sha256
from hawqtvm.errors import BadInput
from hawqtvm.latency import described
from hawqtvm.under_limits import Setting, choose_bits, limits_of
from tests.nets import quantized_net
from tests.sensitivity.small import images

SETTING = Setting(batch=1, target="x86-64", threads=1, residual="int16", activations="bytes", tuning_logs=None)


@pytest.fixture
def net():
    return quantized_net("residual")


@pytest.fixture
def ran(monkeypatch, net):
    """The stages that measure, replaced by ones that say that they ran; a layer takes 2 us at 8 bits and 1 at 4."""
    stages = []

    def tune(quantized, **options):
        stages.append(("tune", options["batch"], options["out"].name))

    def latency(quantized, *, out, checkpoint_sha256, tuning_logs, **options):
        stages.append(("latency", options["batch"]))
        layers = {s.name: {"4": 1.0, "8": 2.0} for s in net.graph.layers}
        setting = described(net.name, checkpoint_sha256, tuning_logs=tuning_logs, **options)
        out.write_text(json.dumps({"version": 1, **setting, "layers": layers, "other_us": 0.0, "edges": []}))

    monkeypatch.setattr(hawqtvm.tune, "tune", tune)
    monkeypatch.setattr(hawqtvm.latency, "latency", latency)
    return stages


def choose(net, folder, limits, setting=SETTING):
    return choose_bits(net, weights_sha256(net), images(net), limits, folder, setting)


def test_a_limit_of_size_measures_no_time(net, ran, tmp_path):
    plan = choose(net, tmp_path, {"size": "0.5"})
    assert ran == [] and (tmp_path / f"{net.name}.sensitivity.json").is_file()
    assert net.bits(plan.bits) == plan.bits and 4 in plan.bits.values() and plan.name == "size-0.5"
    assert plan.provenance["predicted"]["size_mb"] <= plan.provenance["limits"]["size_mb"]


def test_a_limit_of_latency_tunes_and_profiles_once(net, ran, tmp_path):
    plan = choose(net, tmp_path, {"latency": "0.5"})
    assert ran == [("tune", 1, "tuning_logs"), ("latency", 1)]
    assert plan.provenance["predicted"]["latency_ms"] <= plan.provenance["limits"]["latency_ms"]
    ran.clear()
    assert choose(net, tmp_path, {"latency": "0.5"}).bits == plan.bits
    assert ("latency", 1) not in ran  # the profile was there


def test_a_profile_of_another_setting_is_measured_again(net, ran, tmp_path):
    choose(net, tmp_path, {"latency": "0.5"})
    ran.clear()
    choose(net, tmp_path, {"latency": "0.5"}, Setting(**vars(SETTING) | {"batch": 2}))
    assert ("latency", 2) in ran


def test_bits_or_limits_not_both():
    given = {"size": None, "bops": None, "latency": "0.5", "target": "native"}
    assert limits_of(Namespace(bits=None, **given)) == {"latency": "0.5"}
    with pytest.raises(BadInput, match="--bits and --latency"):
        limits_of(Namespace(bits="4", **given))


def test_a_limit_that_makes_no_sense_is_refused_at_once():
    with pytest.raises(BadInput, match="--size 3 parsecs"):
        limits_of(Namespace(bits=None, size="3 parsecs", bops=None, latency=None))


def test_a_limit_that_no_plan_meets(net, ran, tmp_path):
    with pytest.raises(BadInput, match="no plan meets --size"):
        choose(net, tmp_path, {"size": "0.00001MB", "latency": "0.5"})
