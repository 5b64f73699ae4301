"""The fully connected layer on Tensor Cores against int64."""

import numpy as np
from cases import VALUES, WORDS, code_limits, epilogues, fill, layer_constants
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_core import ARCHES, outcome

from hawqtvm.qnn.formats import Format
from schedules.cuda import dense
from schedules.target import find_target
from schedules.workload import Dense

NIBBLES, BYTES = WORDS[:2]


@settings(max_examples=8, deadline=None)
@given(
    st.data(),
    st.sampled_from(ARCHES),
    st.builds(
        Dense,
        batch=st.integers(1, 33),
        in_channels=st.integers(5, 300),
        out_channels=st.integers(1, 200),
        x=st.sampled_from([NIBBLES, BYTES]),
        weight_bits=st.just(8),
        epilogue=st.none() | epilogues(tuple(WORDS)),
    ),
    st.sampled_from(VALUES),
    st.integers(0, 2**32),
)
def test_equals_int64(data, arch, workload, kind, seed):
    bits = 4 if workload.x == NIBBLES else 8
    workload = Dense(**{**workload.__dict__, "weight_bits": bits})
    rng, epilogue, target = np.random.default_rng(seed), workload.epilogue, find_target(arch)
    config = data.draw(st.sampled_from(dense.space(workload, target, 1)) | st.just(dense.default(workload, target, 1)))
    x = fill(rng, kind, *workload.x.limits, workload.x_dims)
    half = 1 << (bits - 1)
    weight = fill(rng, kind, -half, half - 1, (workload.out_channels, workload.in_channels), other=True).astype("int8")
    bias, b, c = layer_constants(data.draw, rng, epilogue, weight, workload.x.limits[1], kind)
    residual = None
    if epilogue and epilogue.residual:
        residual = fill(rng, "random", *code_limits(epilogue.residual.format), workload.out_dims)
    ((got, wanted),) = outcome(arch, config, workload, x, weight, bias, b, c, residual, schedule=dense)
    np.testing.assert_array_equal(got, wanted)


def test_few_channels_are_left_to_another_schedule():
    target = find_target("sm_75")
    assert dense.formats(Dense(8, 4, 16, Format("uint8"), 8), target) is None
    assert dense.formats(Dense(8, 64, 16, Format("uint8"), 8), target) == (BYTES, "HWNC")
