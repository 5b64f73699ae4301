"""The dense layer against int64."""

import numpy as np
from cases import INPUTS, VALUES, code_limits, epilogues, fill, layer_constants
from hypothesis import given, settings
from hypothesis import strategies as st
from levels import run
from reference import dense as dense_reference
from reference import finish, with_garbage

from hawqtvm.qnn.formats import Format
from schedules.cpu import dense
from schedules.dispatch import with_layouts
from schedules.workload import Dense, Epilogue


@st.composite
def logits(draw) -> Epilogue:
    """What makes logits: plain NCHW, all of int32, rescaling factors of 1 and less."""
    return Epilogue(Format("int32"), 0, draw(st.sampled_from([0, -(2**31)])), 2**31 - 1, draw(st.integers(30, 34)))


@settings(max_examples=15, deadline=None)
@given(st.data(), st.sampled_from(VALUES), st.integers(0, 2**32))
def test_equals_int64(level, data, kind, seed):
    rng = np.random.default_rng(seed)
    workload = Dense(
        batch=data.draw(st.integers(1, 9)),
        in_channels=data.draw(st.integers(1, 200)),
        out_channels=data.draw(st.integers(1, 200)),
        x=data.draw(st.sampled_from(INPUTS)),
        weight_bits=data.draw(st.sampled_from([4, 8])),
        epilogue=data.draw(epilogues() | logits()),
    )
    epilogue = workload.epilogue
    config = data.draw(st.sampled_from([*dense.space(workload, level, 2), dense.default(workload, level, 2)]))
    if epilogue:
        workload = with_layouts(workload, "NCHW16c", dense.formats(workload, level)[1])
        epilogue = workload.epilogue
    assert dense.check(config, workload, level) is None
    half = 1 << (workload.weight_bits - 1)
    x = fill(rng, kind, *workload.x.limits, workload.x_dims)
    shape = (workload.out_channels, workload.in_channels)
    weight = fill(rng, kind, -half, half - 1, shape, other=True).astype("int8")
    bias, b, c = layer_constants(data.draw, rng, epilogue, weight, workload.x.limits[1], kind)
    inputs = [with_garbage(workload.x.store(x), workload.x, workload.in_channels)]
    inputs += dense.constants(config, workload, weight, bias, b, c)
    residual = None
    if epilogue and epilogue.residual:
        residual = fill(rng, kind, *code_limits(epilogue.residual.format), workload.out_dims)
        inputs.append(epilogue.residual.format.store(residual))
    out = epilogue.out if epilogue else Format("int32")
    got = run(dense.build(config, workload, level), inputs, out.shape(workload.out_dims), out.dtype, level)
    wanted = finish(dense_reference(x, weight, bias), epilogue, b, c, residual)
    np.testing.assert_array_equal(out.load(got, workload.out_channels), wanted)
