"""Requantize and residual add in HWNC against int64."""

import numpy as np
import pytest
from cases import VALUES, WORDS, code_limits, fill, rescaled
from gpu import T4, Case, assert_exact
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import elementwise as elementwise_reference
from tensor_core import stored_with_garbage

from hawqtvm.qnn.formats import Format
from schedules.cuda import elementwise
from schedules.workload import Elementwise, Rescaled

UINT4, UINT8, INT16, _ = WORDS


@st.composite
def cases(draw) -> Case:
    """Every batch that pads or fills a fragment, channels with a tail and without."""
    out = draw(st.sampled_from(WORDS))
    low, high = code_limits(out)
    workload = Elementwise(
        dims=draw(st.tuples(st.sampled_from([1, 2, 3, 4, 5, 8, 9]), st.integers(1, 70), *[st.integers(1, 4)] * 2)),
        operands=tuple(draw(st.lists(rescaled(WORDS), min_size=1, max_size=2))),
        out=out,
        zero_point=draw(st.sampled_from([0, 3])),
        lo=draw(st.sampled_from([low, low + 2])),
        hi=draw(st.sampled_from([high, high - 2])),
    )
    config = draw(st.sampled_from(elementwise.space(workload, T4, 1)))
    assert elementwise.check(config, workload, T4) is None
    rng, kind = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.sampled_from(VALUES))
    codes = [fill(rng, kind, *code_limits(operand.format), workload.dims) for operand in workload.operands]
    inputs = [stored_with_garbage(q, operand.format) for q, operand in zip(codes, workload.operands, strict=True)]
    kernel = elementwise.build(config, workload, T4)
    return Case((workload, config), kernel, inputs, [(out, elementwise_reference(codes, workload))])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(cases())
def test_equals_int64(case):
    assert_exact(case)


def test_accesses_are_as_wide_as_the_wide_stream_allows():
    workload = Elementwise((8, 64, 7, 7), (Rescaled(INT16, 0, 2**30, 33),), UINT4, 0, 0, 15)
    config = elementwise.default(workload, T4, 1)
    assert config.codes == 8  # 128 bits of int16
    as_bytes = Elementwise((8, 64, 7, 7), (Rescaled(UINT8, 0, 2**30, 33),), UINT4, 0, 0, 15)
    assert elementwise.default(as_bytes, T4, 1).codes == 16


@pytest.mark.parametrize("layout", ["NCHW", "NCHW16c"])
def test_other_layouts_are_refused(layout):
    workload = Elementwise((1, 32, 2, 2), (Rescaled(Format("int16", layout), 0, 2**30, 33),), UINT8, 0, 0, 255)
    assert "HWNC" in elementwise.check(elementwise.default(workload, T4, 1), workload, T4)
