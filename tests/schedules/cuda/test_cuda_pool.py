"""Max and average pooling in HWNC against numpy."""

import numpy as np
import reference
from cases import VALUES, WORDS, code_limits, fill, rescaled, windows
from gpu import T4, Case, assert_exact
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_core import stored_with_garbage

from schedules.cuda import pool
from schedules.workload import AvgPool2d, MaxPool2d

UINT8, INT16 = WORDS[1], WORDS[2]


@st.composite
def cases(draw) -> Case:
    window = draw(windows(pool=True))
    dims = (draw(st.sampled_from([1, 2, 3, 8])), draw(st.integers(1, 40)), window.pop("height"), window.pop("width"))
    x = draw(st.sampled_from(WORDS))
    if draw(st.booleans()):
        workload, out = MaxPool2d(dims, x, **window), x
    else:
        del window["dilation"]
        out, scale = draw(st.sampled_from(WORDS)), draw(rescaled([x]))
        low, high = code_limits(out)
        numbers = {"x_zero_point": scale.zero_point, "b": scale.b, "c": scale.c, "zero_point": 3}
        workload = AvgPool2d(dims, x, out=out, lo=low, hi=high, **numbers, **window)
    config = draw(st.sampled_from(pool.space(workload, T4, 1)))
    assert pool.check(config, workload, T4) is None
    rng, kind = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.sampled_from(VALUES))
    codes = fill(rng, kind, *code_limits(x), dims)
    expected = reference.max_pool2d if isinstance(workload, MaxPool2d) else reference.avg_pool2d
    return Case(
        (workload, config),
        pool.build(config, workload, T4),
        [stored_with_garbage(codes, x)],
        [(out, expected(codes, workload))],
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(cases())
def test_equals_numpy(case):
    assert_exact(case)


def test_a_residual_networks_pools():
    """3x3 with stride 2 and the global average, as wide as ResNet-18 has them."""
    rng = np.random.default_rng(0)
    stem = MaxPool2d((8, 64, 12, 12), INT16, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1))
    last = AvgPool2d((8, 512, 7, 7), INT16, 0, (7, 7), (1, 1), (0, 0, 0, 0), 2**30 + 5, 41, UINT8, 0, 0, 255)
    for workload, expected in ((stem, reference.max_pool2d), (last, reference.avg_pool2d)):
        codes = rng.integers(-(2**15), 2**15, workload.dims)
        kernel = pool.build(pool.default(workload, T4, 1), workload, T4)
        out = getattr(workload, "out", workload.x)
        inputs, wanted = [stored_with_garbage(codes, workload.x)], [(out, expected(codes, workload))]
        assert_exact(Case(workload, kernel, inputs, wanted))
