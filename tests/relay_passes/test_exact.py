"""Every stage of every network runs, and equals the integer reference code by code."""

import numpy as np
import pytest
import tvm_ffi
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tvm import relax

from hawqtvm.qnn import reference
from relay_passes.check import check
from relay_passes.pipeline import REWRITES, lower
from schedules.target import CPU_TARGETS
from tests.needs import needs_level
from tests.nets import NETS, quantized
from tests.relay_passes.random_nets import networks
from tests.relay_passes.stages import (
    context_of,
    eight_bits,
    emitted,
    input_codes,
    mixed_plan,
    model_of,
    net_context,
    run,
    scheduled,
    stages,
)

PLANS = ("8", "4", "mixed")
RESIDUALS = ("int16", "uint8", "int32")


def plan_of(model, plan: str, seed: int = 0):
    return mixed_plan(model, seed) if plan == "mixed" else int(plan)


ALL_STAGES = ("emit", *(rewrite.__name__ for rewrite in REWRITES), "schedule")


def assert_exact(context, codes, run_stages=ALL_STAGES):
    """Up to the dyadic pass a factor is a real number, within 2**-31 of the dyadic one: half a code may round apart."""
    wanted = reference.logits(context.arithmetic, codes)
    before = reference.logits(eight_bits(context), codes)
    for name, mod in stages(context):
        relax.analysis.well_formed(mod)
        if name in run_stages:
            tolerance = 1 if name in ("emit", "assign_bits") else 0
            expected = before if name == "emit" else wanted
            np.testing.assert_allclose(run(mod, codes), expected, rtol=0, atol=tolerance, err_msg=name)


def combinations() -> list:
    """Three nets at every stage once, all nets at the last stage three times; the rest is for slow runs."""
    cases = []
    for number, net in enumerate(NETS):
        for p, plan in enumerate(PLANS):
            for r, residual in enumerate(RESIDUALS):
                turn = (number + p + r) % 3
                name = f"{net}-{plan}-{residual}".replace(" ", "_")
                run_stages = ALL_STAGES if turn or p == number else ALL_STAGES[-1:]
                marks = [pytest.mark.slow] if turn else []
                cases.append(pytest.param(net, plan, residual, run_stages, marks=marks, id=name))
    return cases


@pytest.mark.parametrize(("net", "plan", "residual", "run_stages"), combinations())
def test_nets(net, plan, residual, run_stages):
    context = net_context(net, plan_of(model_of(net), plan), residual)
    assert_exact(context, input_codes(context), run_stages)


def random_case(data):
    """A random network under a random plan, on random images."""
    net, dims = data.draw(networks())
    seed = data.draw(st.integers(0, 2**16))
    model = quantized(net, dims, seed)
    context = context_of(
        model,
        mixed_plan(model, seed) if data.draw(st.booleans()) else 4,
        data.draw(st.sampled_from(RESIDUALS)),
        batch=data.draw(st.integers(1, 2)),
    )
    return context, input_codes(context, seed)


# shrinking would compile hundreds of networks
RANDOM = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.generate),
}


@settings(max_examples=10, **RANDOM)
@given(st.data())
def test_random_nets(data):
    assert_exact(*random_case(data), ("dyadic", "pack", "schedule"))


@pytest.mark.slow
@settings(max_examples=50, **RANDOM)
@given(st.data())
def test_many_random_nets(data):
    assert_exact(*random_case(data))


@pytest.mark.parametrize("target", CPU_TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize(("net", "threads"), [("residual", 2), ("branches", 1)])
def test_targets_up_to_this_cpu(net, target, threads):
    """A library for a lower level runs on a higher one; optimized as it is shipped."""
    needs_level(target)
    context = net_context(net, mixed_plan(model_of(net), threads), target=target, threads=threads)
    mod, _ = lower(context)
    codes = input_codes(context)
    np.testing.assert_array_equal(run(mod, codes, target.tvm), reference.logits(context.arithmetic, codes))


@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda rewrite: rewrite.__name__)
def test_rewrites_leave_their_input_as_it_is(rewrite):
    context = net_context("branches", 4, "uint8")
    mod = emitted(context)
    for earlier in REWRITES[: REWRITES.index(rewrite)]:
        mod = earlier(mod, context)
    before = mod.clone()
    first = rewrite(mod, context)
    assert tvm_ffi.structural_equal(mod, before)
    assert tvm_ffi.structural_equal(rewrite(mod, context), first, map_free_vars=True)


def test_schedule_and_check_leave_their_input_as_it_is():
    context = net_context("branches", 4, "uint8")
    mod = emitted(context)
    for rewrite in REWRITES:
        mod = rewrite(mod, context)
    before = mod.clone()
    scheduled_mod, kernels = scheduled(mod, context)
    assert tvm_ffi.structural_equal(mod, before)
    before = scheduled_mod.clone()
    assert check(scheduled_mod, context, kernels) is scheduled_mod
    assert tvm_ffi.structural_equal(scheduled_mod, before)
