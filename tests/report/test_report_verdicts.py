"""Verdicts over simulated machines: no false alarms, real changes caught, doubt said; and what is no comparison."""

from dataclasses import replace

import numpy as np
import pytest

from hawqtvm.errors import BadInput
from hawqtvm.report.compare import (
    ALPHA,
    INCONCLUSIVE,
    PASS,
    REGRESSION,
    UNCONFIRMED,
    Factors,
    Row,
    compare,
    judged,
    overall,
)
from hawqtvm.report.matching import changes, matched
from hawqtvm.report.statistics import Shift, holm
from tests.report.simulate import apart, in_turns, run, speeds

NOISES = ("quiet", "drift", "bimodal", "walk", "bursts")
STEADY = NOISES[:-1]
MAKERS = {"in turns": in_turns, "apart": apart}


def verdicts(maker, noise, count, **head):
    """The comparisons' verdicts, each with its automatic second measurement, in turns."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        base, changed = maker(noise, rng, **head)
        found.append(compare(base, changed, again=lambda rng=rng: in_turns(noise, rng, session="again", **head)))
    return found


def of(comparison, layer):
    return next(row for row in comparison.rows if row.layer == layer)


@pytest.mark.parametrize("count", [4, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("noise", NOISES)
def test_no_false_alarms(noise, maker, count):
    found = verdicts(MAKERS[maker], noise, count)
    assert not any(comparison.verdict == REGRESSION for comparison in found)
    if noise in STEADY:
        assert all(comparison.verdict == PASS for comparison in found)


@pytest.mark.parametrize("count", [2, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("noise", STEADY)
@pytest.mark.parametrize(("head", "layer"), [({"slower": {"body.0": 1.12}}, "body.0"), ({"network": 1.05}, None)])
def test_real_changes_are_caught(noise, maker, head, layer, count):
    for comparison in verdicts(MAKERS[maker], noise, count, **head):
        assert comparison.verdict == of(comparison, layer).verdict == REGRESSION and comparison.remeasured
        alarms = {row.layer for row in comparison.rows if row.verdict == REGRESSION}
        assert alarms <= {layer, None}


def test_what_noise_hides_is_inconclusive_not_a_pass():
    rng = np.random.default_rng(3)
    speed = np.exp(rng.normal(0, 0.15, (15, 6)))
    base, head = (run(np.ones((15, 6)) * speed, rng, session="s") for _ in range(2))
    noisy = replace(head, networks=(_shaken(head.networks[0], rng),))
    comparison = compare(base, noisy)
    assert comparison.verdict == INCONCLUSIVE and of(comparison, None).reason.startswith("noise: it may be 1.")


def _shaken(network, rng):
    shake = np.exp(rng.normal(0, 0.2, len(network.us)))
    us = tuple(
        tuple(tuple(call * by for call in turn) for turn in turns) for turns, by in zip(network.us, shake, strict=True)
    )
    return replace(network, us=us)


def test_without_a_yardstick_that_follows_the_machine_nothing_is_confirmed():
    for noise in ("drift", "bimodal", "walk"):
        for seed in range(2):
            base, head = (_blind(side) for side in apart(noise, np.random.default_rng(seed)))
            assert compare(base, head).verdict != REGRESSION


def _blind(made):
    return replace(made, load=tuple(replace(load, yardstick_us=(600.0,) * 6) for load in made.load))


def test_a_regression_needs_the_second_measurement():
    rng = np.random.default_rng(0)
    base, head = in_turns("quiet", rng, slower={"body.0": 1.3})
    alone = compare(base, head)
    assert alone.verdict == of(alone, "body.0").verdict == INCONCLUSIVE
    assert of(alone, "body.0").reason == UNCONFIRMED and not alone.remeasured
    gone = compare(base, head, again=lambda: in_turns("quiet", rng, session="again"))
    assert gone.remeasured and of(gone, "body.0").verdict in (PASS, INCONCLUSIVE) and gone.verdict != REGRESSION
    there = compare(base, head, again=lambda: in_turns("quiet", rng, session="again", slower={"body.0": 1.3}))
    assert there.verdict == REGRESSION and len(there.head.load) == 30
    fresh = apart("quiet", rng, slower={"body.0": 1.3})
    assert len(compare(*fresh, again=lambda: in_turns("quiet", rng, session="again")).head.load) == 15


def test_nothing_is_measured_again_after_a_pass_and_an_improvement_is_told():
    def again():
        raise AssertionError("measured again")

    rng = np.random.default_rng(0)
    base, head = in_turns("quiet", rng, slower={"body.0": 0.8}, network=0.9)
    comparison = compare(base, head, again=again)
    assert comparison.verdict == "improvement" == of(comparison, "body.0").verdict == of(comparison, None).verdict
    assert of(comparison, "stem").verdict == PASS


def test_factors_decide_what_is_slower():
    rng = np.random.default_rng(1)
    base, head = in_turns("quiet", rng, slower={"body.0": 1.2}, network=1.06)

    def again():
        return in_turns("quiet", rng, session="again", slower={"body.0": 1.2}, network=1.06)

    rows = {row.layer: row.verdict for row in compare(base, head, Factors(1.2, 1.3), again).rows}
    assert rows["body.0"] == rows[None] == PASS
    assert compare(base, head, Factors(1.2, 1.15), again).verdict == REGRESSION
    assert compare(base, head, Factors(1.03, 1.3), again).verdict == REGRESSION
    for wrong in (1.0, 0.5, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="above 1"):
            Factors(network=wrong)


def row(layer, verdict, us=10.0, reason=""):
    return Row("net", layer, us, us, Shift(1, 1, 1, 0, 1, 1), 1.0, verdict, reason)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(None, PASS), row("a", PASS)], PASS),
        ([row(None, PASS), row("a", REGRESSION, 0.1)], REGRESSION),
        ([row(None, INCONCLUSIVE), row("a", PASS)], INCONCLUSIVE),
        ([row(None, PASS), row("a", INCONCLUSIVE, 1.0), row("b", PASS, 99.0)], PASS),
        ([row(None, PASS), row("a", INCONCLUSIVE, 20.0), row("b", PASS, 80.0)], INCONCLUSIVE),
        ([row(None, PASS), row("a", INCONCLUSIVE, 1.0, UNCONFIRMED), row("b", PASS, 99.0)], INCONCLUSIVE),
        ([row(None, "improvement"), row("a", PASS)], "improvement"),
        ([row(None, PASS), row("a", "improvement")], PASS),
    ],
)
def test_the_overall_verdict(rows, expected):
    assert overall(rows) == expected


def test_holm_covers_the_layers_of_all_networks_and_the_networks_apart():
    rng = np.random.default_rng(5)
    base, head = in_turns("quiet", rng, rounds=10)
    base, head = (
        replace(run, networks=tuple(replace(run.networks[0], name=name) for name in "ab")) for run in (base, head)
    )
    rows = judged(base, head, Factors())
    for family in ([row for row in rows if row.layer is None], [row for row in rows if row.layer is not None]):
        assert [row.p for row in family] == holm([row.shift.p for row in family])
    assert [(row.network, row.layer is None) for row in rows if row.layer is None] == [("a", True), ("b", True)]


def test_a_network_with_one_odd_round_does_not_need_to_be_told_among_its_layers():
    base, head = in_turns("quiet", np.random.default_rng(2), rounds=12, network=1.06)
    (network,) = base.networks
    odd = tuple(tuple(10.0 * call for call in turn) for turn in network.us[3])
    base = replace(base, networks=(replace(network, us=(*network.us[:3], odd, *network.us[4:])),))
    whole, *layers = judged(base, head, Factors())
    assert (whole.layer, whole.verdict) == (None, REGRESSION)
    assert len(layers) * whole.p > ALPHA


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": {"name": "other-cpu"}}, "base was measured on some-cpu-2-cores, head on other-cpu"),
        ({"network": {"threads": 2}}, "net: threads is 1 in base and 2 in head"),
        ({"network": {"batch": 8}}, "net: batch is 1 in base and 8 in head"),
        ({"network": {"model": "other"}}, "net: model is net in base and other in head"),
        ({"network": {"checkpoint": "d" * 64}}, "net: the sha256 of its weights is cccccccccccc... in base and dddd"),
        ({"versions": {"yardstick": "OpenSSL 4"}}, "base's yardstick ran with OpenSSL 3, head's with OpenSSL 4"),
    ],
)
def test_refused_by_name(change, message):
    base, head = apart("quiet", np.random.default_rng(0), rounds=7)
    network = replace(head.networks[0], **change.get("network", {}))
    head = replace(
        head,
        networks=(network,),
        device=replace(head.device, **change.get("device", {})),
        versions=replace(head.versions, **change.get("versions", {})),
    )
    with pytest.raises(BadInput, match=message.replace("(", r"\(")):
        compare(base, head)


def test_networks_are_matched_by_name():
    rng = np.random.default_rng(0)
    base, head = in_turns("quiet", rng)

    def named(made, *names):
        return replace(made, networks=tuple(replace(made.networks[0], name=name) for name in names))

    assert [b.name + h.name for b, h in matched(named(base, "a"), named(head, "b"))] == ["ab"]
    assert [b.name + h.name for b, h in matched(named(base, "a", "b"), named(head, "b", "c"))] == ["bb"]
    with pytest.raises(BadInput, match="base has a, b, head has c: none in common"):
        matched(named(base, "a", "b"), named(head, "c"))
    found = changes(named(base, "a", "b"), named(head, "b", "c"))
    assert [(c["network"], c["base"], c["head"]) for c in found] == [("a", "there", None), ("c", None, "there")]


def test_changes_of_plan_and_schedule():
    base, head = in_turns("quiet", np.random.default_rng(0))
    assert changes(base, head) == []
    network = head.networks[0]
    stem = replace(network.layers[0], bits=4, schedule="winograd_conv2d")
    network = replace(network, plan="other", layers=(stem, *network.layers[2:]))
    found = changes(base, replace(head, networks=(network,), versions=replace(head.versions, tvm="0.28")))
    assert [(c["layer"], c["what"], c["base"], c["head"]) for c in found] == [
        (None, "plan", "mixed", "other"),
        ("stem", "bits", 8, 4),
        ("stem", "schedule", "direct_conv2d", "winograd_conv2d"),
        ("body.0", "kernel", "there", None),
        (None, "version of tvm", "0.27.0", "0.28"),
    ]


def test_too_few_rounds_are_refused_before_a_verdict():
    base, head = in_turns("quiet", np.random.default_rng(0), rounds=6)
    with pytest.raises(BadInput, match="6 rounds cannot tell anything of 5 times at once: measure with --rounds 8"):
        compare(base, head)


def test_speeds_are_what_they_say():
    rng = np.random.default_rng(0)
    assert {noise: speeds(noise, rng).max() > 1.2 for noise in ("drift", "bimodal")} == {"drift": True, "bimodal": True}
