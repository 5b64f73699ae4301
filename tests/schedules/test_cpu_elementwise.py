"""Requantize and residual add against int64, on AVX-512 and on the least x86-64 that is supported."""

import numpy as np
import pytest
from cases import OUTPUTS, VALUES, code_limits, fill, rescaled
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import BASELINE, TARGET, VNNI, run
from reference import elementwise as elementwise_reference

from hawqtvm.qnn.formats import Format
from schedules.cpu import elementwise
from schedules.workload import Elementwise, Rescaled

PLAIN = [Format("uint4"), Format("uint8"), Format("int16"), Format("int32")]


@pytest.mark.parametrize("target", [TARGET, BASELINE], ids=["avx512", "baseline"])
@settings(max_examples=25, deadline=None)
@given(st.data(), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_equals_int64(request, target, data, kind, seed):
    if target is TARGET:
        request.getfixturevalue("needs_vnni")
    rng = np.random.default_rng(seed)
    formats = data.draw(st.sampled_from([OUTPUTS, PLAIN]))
    out = data.draw(st.sampled_from(formats))
    low, high = code_limits(out)
    workload = Elementwise(
        dims=data.draw(st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))),
        operands=tuple(data.draw(st.lists(rescaled(formats), min_size=1, max_size=2))),
        out=out,
        zero_point=data.draw(st.sampled_from([0, 3])),
        lo=data.draw(st.sampled_from([low, low + 2])),
        hi=data.draw(st.sampled_from([high, high - 2])),
    )
    config = data.draw(st.sampled_from(elementwise.space(workload, VNNI, 2)))
    assert elementwise.check(config, workload, VNNI) is None
    codes = [fill(rng, kind, *code_limits(operand.format), workload.dims) for operand in workload.operands]
    stored = [operand.format.store(q) for operand, q in zip(workload.operands, codes, strict=True)]
    got = run(elementwise.build(config, workload, VNNI), stored, out.shape(workload.dims), out.dtype, target)
    np.testing.assert_array_equal(out.load(got, workload.dims[1]), elementwise_reference(codes, workload))


def test_shares_of_several_tasks(needs_vnni):
    """51 * 53 vectors over 2 tasks leave one that belongs to neither."""
    x = Format("int16", "NCHW16c")
    workload = Elementwise((1, 16, 51, 53), (Rescaled(x, 0, 2**30 + 99, 37),), OUTPUTS[0], 0, 0, 255)
    codes = np.random.default_rng(0).integers(*x.limits, workload.dims)
    config = elementwise.default(workload, VNNI, 2)
    assert config.tasks == 2
    got = run(elementwise.build(config, workload, VNNI), [x.store(codes)], OUTPUTS[0].shape(workload.dims), "uint8")
    np.testing.assert_array_equal(OUTPUTS[0].load(got, 16), elementwise_reference([codes], workload))


@pytest.mark.parametrize("target", [TARGET, BASELINE], ids=["avx512", "baseline"])
def test_scale_far_above_one(request, target):
    """A shift too small for 32-bit sums, on values small enough that the rounding shows."""
    if target is TARGET:
        request.getfixturevalue("needs_vnni")
    x = Format("int32", "NCHW16c")
    workload = Elementwise((1, 16, 1, 11), (Rescaled(x, 0, 2**30 + 2**23 + 5, 24),) * 2, x, 3, -(2**24), 2**24)
    config = elementwise.default(workload, VNNI, 1)
    codes = [np.arange(-88, 88).reshape(workload.dims), np.arange(176).reshape(workload.dims)]
    stored = [x.store(q) for q in codes]
    got = run(elementwise.build(config, workload, VNNI), stored, x.shape(workload.dims), "int32", target)
    np.testing.assert_array_equal(x.load(got, 16), elementwise_reference(codes, workload))
