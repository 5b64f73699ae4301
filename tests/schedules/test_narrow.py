"""Requantization in 16-bit lanes: every schedule against int64, for accumulators within int16 and beyond."""

from dataclasses import replace

import numpy as np
import pytest
from cases import BLOCKED, INPUTS, fill, requantized
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from levels import run, run_outputs
from reference import VNNI, conv2d, dense, expand, finish, requantize, rescale, with_garbage

from hawqtvm.qnn.dyadic import dyadic, shortened
from hawqtvm.qnn.formats import Format
from relay_passes.headroom import headroom16, undecided
from schedules.cpu import conv2d_direct, strassen, winograd
from schedules.cpu import dense as dense_schedule
from schedules.cpu.channel_table import channel_table, table_rows
from schedules.cpu.narrow import ROWS, fits_narrow
from schedules.cpu.winograd_geometry import geometry
from schedules.workload import MAX_HEADROOM, Conv2d, Dense, Epilogue, Rescaled

BYTES, CODES, WORDS = Format("uint8", BLOCKED), Format("uint4", BLOCKED), Format("uint4", BLOCKED, packed=True)
CHANNELS = st.integers(1, 70)
BODY_CHANNELS = st.integers(5, 70)  # fewer make a stem
MANY_TOO_WIDE = [HealthCheck.filter_too_much]  # for 16 bits, of what is drawn
SPREADS = ([1], [1, 2, 8], [1, 30, 3000])  # of the channels' scales
WEIGHTS = ("random", "small", "most and least", "most and most", "alternating", "ends")


@st.composite
def ratios(draw) -> tuple[int, int]:
    """A rescaling factor from one 8-bit scale to another."""
    b, c = dyadic(shortened(np.float64(draw(st.floats(0.05, 2.0)))), "residual")
    return int(b), int(c)


@st.composite
def residuals(draw) -> Rescaled:
    b, c = draw(ratios())
    return Rescaled(draw(st.sampled_from([BYTES, CODES])), draw(st.integers(0, 40)), b, c)


@st.composite
def epilogues(draw, weight: np.ndarray, bias: np.ndarray, second: bool) -> tuple[Epilogue, np.ndarray, np.ndarray]:
    """An epilogue with its ``b`` and ``c``: most often over about the accumulators' range, some channels far off."""
    out, residual = draw(st.sampled_from([BYTES, CODES, WORDS])), draw(st.none() | residuals())
    low, high = out.limits
    lo, hi = draw(st.sampled_from([low, low + 3])), draw(st.sampled_from([high, high - 1]))
    zero = draw(st.sampled_from([0, 0, 3]))
    reach = 15 * np.abs(weight.astype("int64")).reshape(len(weight), -1).sum(1) + np.abs(bias.astype("int64")) + 1
    rng, spread = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.sampled_from(SPREADS))
    ratio = high * draw(st.sampled_from([0.4, 1.0, 3.0, 10.0, 40.0, 120.0])) / reach / rng.choice(spread, len(weight))
    b, c = dyadic(shortened(np.clip(ratio, 2.0**-32, 1.9)), "layer")
    room = headroom16(weight, bias, 15, b, c, *undecided(lo, hi, zero, residual))
    codes = draw(st.none() | requantized(out, [CODES, WORDS, BYTES])) if second else None
    return Epilogue(out, zero, lo, hi, int(c.min()), residual, codes, room), b.astype("int32"), c.astype("int32")


def numbers(draw, rng, workload) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias: some channels dead, accumulators up to some times what int16 holds."""
    kind = draw(st.sampled_from(WEIGHTS))
    window = workload.kernel if isinstance(workload, Conv2d) else ()
    weight = fill(rng, kind, -8, 7, (workload.out_channels, workload.in_channels, *window)).astype("int8")
    weight[rng.random(len(weight)) < draw(st.sampled_from([0, 0.2]))] = 0
    extent = draw(st.sampled_from([0, 200, 2**13, 2**15, 2**24]))
    return weight, rng.integers(-extent, extent + 1, len(weight)).astype("int32")


@st.composite
def convolutions(draw, kernel: int, strides=((1, 1), (2, 2), (1, 2)), inputs=BODY_CHANNELS, outputs=CHANNELS) -> Conv2d:
    return Conv2d(
        batch=draw(st.integers(1, 3)),
        in_channels=draw(inputs),
        height=draw(st.integers(3, 9)),
        width=draw(st.integers(3, 9)),
        out_channels=draw(outputs),
        kernel=(kernel, kernel),
        strides=draw(st.sampled_from(strides)),
        padding=(kernel // 2,) * 4,
        dilation=(1, 1),
        groups=1,
        x=draw(st.sampled_from(INPUTS[1:])),
        x_zero_point=draw(st.sampled_from([0, 0, 5])),
        weight_bits=4,
        headroom=2,
    )


def assert_exact(data, schedule, level, workload: Conv2d, second: bool = True) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weight, bias = numbers(data.draw, rng, workload)
    epilogue, b, c = data.draw(epilogues(weight, bias, second))
    workload = replace(workload, epilogue=epilogue)
    config = data.draw(st.sampled_from(schedule.space(workload, level, 1)))
    assume(fits_narrow(geometry(config, workload).epilogue if schedule is winograd else epilogue))
    x = fill(rng, data.draw(st.sampled_from(WEIGHTS)), 0, 15, workload.x_dims)
    inputs = [with_garbage(workload.x.store(x), workload.x, workload.in_channels)]
    stored = schedule.constants(config, workload, weight, bias, b, c)
    inputs += expand(schedule.expand(config, workload), stored, level.tvm)
    residual = None
    if epilogue.residual:
        residual = fill(rng, "random", *epilogue.residual.format.limits, workload.out_dims)
        inputs.append(epilogue.residual.format.store(residual))
    outputs = [(format.shape(workload.out_dims), format.dtype) for format in epilogue.outputs]
    found = run_outputs(schedule.build(config, workload, level), inputs, outputs, target=level)
    wanted = [finish(conv2d(x, weight, bias, workload), epilogue, b, c, residual)]
    if epilogue.codes:
        wanted.append(requantize(wanted[0], epilogue.codes))
    for format, got, codes in zip(epilogue.outputs, found, wanted, strict=True):
        np.testing.assert_array_equal(format.load(got, workload.out_channels), codes, err_msg=str(format))


@settings(max_examples=25, deadline=None, suppress_health_check=MANY_TOO_WIDE)
@given(st.data(), st.sampled_from([1, 3]))
def test_direct(level, data, kernel):
    assert_exact(data, conv2d_direct, level, data.draw(convolutions(kernel)))


@settings(max_examples=15, deadline=None, suppress_health_check=MANY_TOO_WIDE)
@given(st.data())
def test_winograd(level, data):
    assert_exact(data, winograd, level, data.draw(convolutions(3)))


@settings(max_examples=10, deadline=None, suppress_health_check=MANY_TOO_WIDE)
@given(st.data())
def test_strassen(data):
    even = st.sampled_from([32, 64])
    workload = data.draw(convolutions(1, strides=((1, 1),), inputs=even, outputs=even))
    assert_exact(data, strassen, VNNI, workload, second=False)


@settings(max_examples=10, deadline=None, suppress_health_check=MANY_TOO_WIDE)
@given(st.data(), st.integers(1, 5), st.integers(1, 70), st.integers(1, 70), st.sampled_from(INPUTS[1:]))
def test_dense(level, data, batch, channels, out_channels, x_format):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    workload = Dense(batch, channels, out_channels, x_format, 4)
    weight, bias = numbers(data.draw, rng, workload)
    epilogue, b, c = data.draw(epilogues(weight, bias, second=False))
    assume(fits_narrow(epilogue))
    workload = replace(workload, epilogue=epilogue)
    config = data.draw(st.sampled_from(dense_schedule.space(workload, level, 1)))
    x = rng.integers(0, 16, workload.x_dims)
    inputs = [with_garbage(x_format.store(x), x_format, channels)]
    inputs += dense_schedule.constants(config, workload, weight, bias, b, c)
    residual = None
    if epilogue.residual:
        residual = fill(rng, "random", *epilogue.residual.format.limits, workload.out_dims)
        inputs.append(epilogue.residual.format.store(residual))
    out = epilogue.out
    func = dense_schedule.build(config, workload, level)
    found = run(func, inputs, out.shape(workload.out_dims), out.dtype, level)
    np.testing.assert_array_equal(
        out.load(found, out_channels), finish(dense(x, weight, bias), epilogue, b, c, residual)
    )


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 6))
def test_headroom_holds_for_every_accumulator(data, channels, taps):
    """Saturated to int16 after a shift, each that a layer can have gives the same code; one bit more may not."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weight, bias = numbers(data.draw, rng, Dense(1, taps, channels, CODES, 4))
    epilogue, b, c = data.draw(epilogues(weight, bias, second=False))
    low, high = undecided(epilogue.lo, epilogue.hi, epilogue.zero_point, epilogue.residual)
    for channel in range(channels):
        least = int(bias[channel]) + 15 * int(np.minimum(weight[channel], 0).sum())
        most = int(bias[channel]) + 15 * int(np.maximum(weight[channel], 0).sum())
        v = np.unique(np.concatenate([np.linspace(least, most, 400).astype("int64"), np.arange(-40000, 40001, 7)]))
        v = v[(v >= least) & (v <= most)]
        for room in range(epilogue.headroom16 + 1):
            kept = np.clip(v << room, -(2**15), 2**15 - 1)
            codes = [np.clip(rescale(w, b[channel], c[channel] + room * k), low, high) for k, w in enumerate((v, kept))]
            np.testing.assert_array_equal(*codes)


def test_headroom_by_what_a_channel_can_reach_or_by_its_clip():
    bias, scale = np.zeros(1, "int32"), (np.array([2**30]), np.array([34]))
    weight = np.full((1, 1, 1, 1), 1, "int8")
    assert headroom16(weight, bias, 15, *scale, 0, 10**6) == MAX_HEADROOM
    for reach, room in ((2**13 - 1, 2), (2**13, 1), (2**14 - 1, 1), (2**14, 0), (2**15 - 1, 0), (2**15, -1)):
        assert headroom16(weight * 0, bias + reach, 15, *scale, 0, 10**6) == room, reach
        assert headroom16(weight * 0, bias - reach, 15, *scale, -(10**6), 0) == room, reach
    # 2**20 / 16 is far past 255, which 2**13 - 1 gives, too
    assert headroom16(weight * 0, bias + 2**20, 15, *scale, 0, 255) == MAX_HEADROOM
    assert headroom16(weight, bias, 15, np.array([2**30 + 1]), np.array([34]), 0, 255) == -1


def test_a_long_multiplier_is_refused():
    epilogue = Epilogue(CODES, 0, 0, 15, 36, headroom16=2)
    arrays = np.zeros(16, "int32"), np.full(16, 2**30 + 1), np.full(16, 36)
    assert table_rows(epilogue) == 1 + ROWS
    with pytest.raises(ValueError, match="15 bits"):
        channel_table(1, epilogue, *arrays)


@given(ratios(), st.integers(0, 40))
def test_ordinary_residuals_fit(scale, zero_point):
    assert fits_narrow(Epilogue(BYTES, 0, 0, 255, 32, Rescaled(BYTES, zero_point, *scale), headroom16=1))


@pytest.mark.parametrize(
    "changed",
    [
        {"headroom16": 0},
        {"min_shift": 31},
        {"out": Format("int16", BLOCKED)},
        {"residual": Rescaled(Format("int16", BLOCKED), 0, 2**30, 36)},
        {"residual": Rescaled(WORDS, 0, 2**30, 30)},
        {"residual": Rescaled(BYTES, 0, 2**30 + 1, 30)},
        {"residual": Rescaled(BYTES, 0, 2**30, 24)},
        {"residual": Rescaled(BYTES, 1, 2**30, 25)},
        {"residual": Rescaled(BYTES, 0, 2**30, 40)},
        {"residual": Rescaled(BYTES, 256, 2**30, 31)},
    ],
)
def test_what_does_not_fit(changed):
    epilogue = Epilogue(BYTES, 0, 0, 255, 32, headroom16=1)
    assert fits_narrow(epilogue) and not fits_narrow(replace(epilogue, **changed))
