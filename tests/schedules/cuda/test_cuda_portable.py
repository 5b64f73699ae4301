"""The GPU's fallback against int64: layers, concat and changes of layout, whatever the formats."""

from dataclasses import replace

import numpy as np
import reference
from cases import VALUES, WORDS, code_limits, epilogues, fill, layer_constants, requantized, windows
from gpu import T4, Case, assert_exact
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_core import stored_with_garbage

from hawqtvm.qnn.formats import Format
from schedules.cuda import portable
from schedules.workload import Concat, Conv2d, Dense, Epilogue, Reformat, Requantized, Rescaled

NCHW = [Format("uint8"), Format("uint4", packed=True), Format("int16"), Format("int32")]
UINT8 = WORDS[1]
BATCHES = st.sampled_from([1, 2, 3, 8])


def config(draw, workload):
    found = draw(st.sampled_from(portable.space(workload, T4, 1)))
    assert portable.check(found, workload, T4) is None
    return found


@st.composite
def layers(draw, twice=False) -> Case:
    """A convolution, grouped and depthwise too, or a dense layer; ``twice``: with a second output."""
    x = draw(st.sampled_from([*WORDS[:2], *NCHW[:2]]))
    epilogue = draw(epilogues(WORDS).filter(bool) if twice else epilogues([*WORDS, *NCHW], [*WORDS, *NCHW]))
    if twice:
        epilogue = replace(epilogue, codes=draw(requantized(epilogue.out, WORDS)))
    common = {"batch": draw(BATCHES), "x": x, "weight_bits": draw(st.sampled_from([4, 8])), "epilogue": epilogue}
    if draw(st.integers(0, 3)):
        groups = draw(st.sampled_from([1, 1, 2, 16]))
        channels = {
            "in_channels": groups * draw(st.sampled_from([1, 2, 9])),
            "out_channels": groups * draw(st.sampled_from([1, 5])),
            "groups": groups,
        }
        workload = Conv2d(x_zero_point=draw(st.integers(0, x.limits[1])), **common, **channels, **draw(windows()))
        taps = (workload.in_channels // groups, *workload.kernel)
    else:
        workload = Dense(in_channels=draw(st.integers(1, 40)), out_channels=draw(st.integers(1, 40)), **common)
        taps = (workload.in_channels,)
    rng, kind = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.sampled_from(VALUES))
    half = 1 << (workload.weight_bits - 1)
    codes = fill(rng, kind, *x.limits, workload.x_dims)
    weight = fill(rng, kind, -half, half - 1, (workload.out_channels, *taps), other=True).astype("int8")
    bias, b, c = layer_constants(draw, rng, epilogue, weight, x.limits[1], kind)
    chosen = config(draw, workload)
    inputs = [stored_with_garbage(codes, x), *portable.constants(chosen, workload, weight, bias, b, c)]
    residual = None
    if epilogue and epilogue.residual:
        residual = fill(rng, kind, *code_limits(epilogue.residual.format), workload.out_dims)
        inputs.append(stored_with_garbage(residual, epilogue.residual.format))
    convolution = isinstance(workload, Conv2d)
    sums = reference.conv2d(codes, weight, bias, workload) if convolution else reference.dense(codes, weight, bias)
    made = reference.finish(sums, epilogue, b, c, residual)
    wanted = [(epilogue.out if epilogue else Format("int32"), made)]
    if twice:
        wanted.append((epilogue.codes.out, reference.requantize(made, epilogue.codes)))
    return Case((workload, chosen), portable.build(chosen, workload, T4), inputs, wanted)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(layers())
def test_layers(case):
    assert_exact(case)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(layers(twice=True))
def test_second_outputs(case):
    assert_exact(case)


def test_second_outputs_need_neighbouring_channels():
    y, x = Format("int16"), UINT8
    codes = Requantized(Rescaled(y, 0, 2**30, 38), Format("uint8"), 0, 0, 255)
    workload = Conv2d(
        1, 8, 4, 4, 8, (1, 1), (1, 1), (0,) * 4, (1, 1), 1, x, 0, 8, Epilogue(y, 0, 0, 99, 32, None, codes)
    )
    assert "NCHW" in portable.check(portable.Config(), workload, T4)


@st.composite
def moves(draw) -> Case:
    """Concat in one layout, or the same codes in another."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, h, w = draw(BATCHES), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    x = draw(st.sampled_from([*WORDS, *NCHW]))
    if draw(st.booleans()):
        channels = draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
        workload = Concat(tuple((n, c, h, w) for c in channels), x, x)
        dims = workload.operands
    else:
        dims = ((n, draw(st.sampled_from([1, 3, 8, 33])), h, w),)
        out = draw(st.sampled_from([f for f in [*WORDS, *NCHW] if f.code == x.code]))
        workload = Reformat(dims[0], x, out)
    codes = [fill(rng, "random", *x.limits, d) for d in dims]
    kernel = portable.build(config(draw, workload), workload, T4)
    return Case(
        workload, kernel, [stored_with_garbage(q, x) for q in codes], [(workload.out, np.concatenate(codes, 1))]
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(moves())
def test_moves(case):
    assert_exact(case)
