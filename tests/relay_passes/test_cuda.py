"""Whole networks for a GPU, in emulation: each tensor's format, and the logits code by code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hawqtvm.emulator.program import EmulatedProgram
from hawqtvm.qnn import reference
from relay_passes.context import Context
from relay_passes.pipeline import lower
from schedules.target import find_target
from tests.needs import needs_compiler
from tests.nets import NETS
from tests.relay_passes.stages import after, input_codes, mixed_plan, model_of, net_context, run
from tests.relay_passes.test_exact import RANDOM, random_case

T4 = find_target("sm_75")


def assert_exact(context: Context, codes: np.ndarray) -> None:
    logits = EmulatedProgram(*lower(context), context.target).run(codes)
    wanted = reference.logits(context.arithmetic, codes)
    np.testing.assert_array_equal(logits.reshape(wanted.shape), wanted)


# the second multiplies 4 bits as 8, the third copies asynchronously
FAST = [("residual", "mixed", 2, "sm_75"), ("branches", "4", 3, "sm_90"), ("pools", "8", 1, "sm_80")]
ALL = [(net, plan, batch) for net in NETS for plan in ("8", "4", "mixed") for batch in (1, 8)]


@needs_compiler
@pytest.mark.parametrize(("net", "plan", "batch", "target"), FAST)
def test_nets(net, plan, batch, target):
    bits = mixed_plan(model_of(net), 1) if plan == "mixed" else int(plan)
    context = net_context(net, bits, target=target, batch=batch)
    assert_exact(context, input_codes(context))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("net", "plan", "batch"), ALL)
@pytest.mark.parametrize("residual", ["int16", "uint8", "int32"])
def test_all_nets(net, plan, batch, residual):
    bits = mixed_plan(model_of(net), 1) if plan == "mixed" else int(plan)
    context = net_context(net, bits, residual, target=T4, batch=batch)
    assert_exact(context, input_codes(context))


@needs_compiler
@settings(max_examples=2, **RANDOM)
@given(st.data())
def test_random_nets(data):
    context, codes = random_case(data)
    assert_exact(Context(context.arithmetic, context.batch, T4, 1), codes)


def test_before_it_is_scheduled_it_runs_on_a_cpu():
    context = net_context("branches", 4, target=T4)
    codes = input_codes(context)
    wanted = reference.logits(context.arithmetic, codes)
    np.testing.assert_array_equal(run(after("layout", context), codes), wanted)


def test_all_that_travels_between_layers_is_hwnc_and_4_bits_are_words():
    _, kernels = lower(net_context("branches", 4, target=T4))
    last = kernels[-1]
    assert (last.op, last.out.layout) == ("qnn.layout_transform", "NCHW")
    for kernel in kernels[:-1]:
        assert kernel.out.layout == "HWNC"
        assert kernel.out.packed == (kernel.out.code == "uint4")
    assert any(kernel.out.packed for kernel in kernels)
