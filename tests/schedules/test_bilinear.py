"""The fast algorithms of a 3-tap convolution against plain sums, and the ranges that make bytes enough for them."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedules.cpu.bilinear import TAPS, Sink, Source, axis, offset, scale_bits, starts, transform_weights, widest

MOST = 63  # the greatest code whose sums fit a byte
INTEGERS = st.integers(-(2**20), 2**20)


@st.composite
def axes(draw):
    """An axis and how many outputs it has."""
    outputs = draw(st.integers(1, 9))
    return axis(draw(st.sampled_from([1, 2])), outputs, draw(st.booleans())), outputs


def samples_of(cut, outputs: int) -> tuple[int, int]:
    """Samples under the outputs, and under all tiles, the wasted half of the last one included."""
    tiles = [(cut.stride * s.start + (s.tiles - 1) * cut.step + s.algorithm.samples) for s in cut.segments]
    needed = (outputs - 1) * cut.stride + TAPS
    return needed, max(needed, *tiles)


def leaves_a_tap_out(cut) -> bool:
    return cut.stride == 1 and cut.segments[-1].algorithm.samples == TAPS - 1


def tiles_of(cut):
    """Algorithm, first output and first sample of every tile."""
    for segment in cut.segments:
        for tile in range(segment.tiles):
            output = segment.start + tile * segment.algorithm.outputs
            yield segment.algorithm, output, segment.start * cut.stride + tile * cut.step


def stepped(algorithm, planes, constants) -> list:
    """The outputs that an algorithm's steps leave, from the sums of its planes."""
    outputs, constants, kept, saved = {}, iter(constants), None, None
    for step in algorithm.steps:
        if step.source is not Source.KEPT:
            kept = next(constants) + (saved if step.source is Source.SAVED else 0)
        kept = kept + planes[step.plane]
        if step.sink is Sink.SAVE:
            saved = kept
        elif step.sink is Sink.DIFFERENCE:
            saved = kept - 2 * saved
        else:
            assert step.sink not in outputs
            outputs[step.sink] = kept
    assert next(constants, None) is None
    return [outputs[a] for a in range(algorithm.outputs)]


@given(axes(), st.data())
def test_every_output_once_and_equal_to_the_plain_sum(axis_outputs, data):
    cut, outputs = axis_outputs
    needed, touched = samples_of(cut, outputs)
    samples = np.array(data.draw(st.lists(INTEGERS, min_size=touched, max_size=touched)))
    if leaves_a_tap_out(cut):
        samples[needed - 1] = 0
    taps = np.array(data.draw(st.lists(INTEGERS, min_size=TAPS, max_size=TAPS)))
    weights = np.array(cut.weights) @ taps
    computed = {}
    for algorithm, output, sample in tiles_of(cut):
        products = np.array(algorithm.inputs) @ samples[sample : sample + algorithm.samples]
        planes = [
            products[plane.product :][: plane.count] @ weights[plane.weight :][: plane.count]
            for plane in algorithm.planes
        ]
        by_signs = np.transpose([plane.signs for plane in algorithm.planes]) @ planes
        assert stepped(algorithm, planes, [0] * algorithm.constants) == list(by_signs)
        for a in range(algorithm.outputs):
            assert output + a not in computed
            computed[output + a] = int(by_signs[a])
    wanted = {
        y: (1 << scale_bits((cut.stride,))) * int(samples[y * cut.stride :][:TAPS] @ taps) for y in range(outputs)
    }
    assert {y: computed.get(y) for y in wanted} == wanted


@pytest.mark.parametrize("outputs", range(1, 10))
@pytest.mark.parametrize("stride", [1, 2])
def test_only_without_a_split_is_half_a_tile_wasted(stride, outputs):
    for split, computed in ((True, outputs), (False, outputs + outputs % 2)):
        segments = axis(stride, outputs, split).segments
        assert sum(segment.tiles * segment.algorithm.outputs for segment in segments) == computed
        assert all(segment.tiles for segment in segments)


def test_products_of_two_outputs():
    """Four for six at stride 1; five for six at stride 2."""
    assert [len(axis(stride, 2, False).segments[0].algorithm.inputs) for stride in (1, 2)] == [4, 5]


@given(axes(), axes(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32), st.booleans())
def test_two_dimensions_in_bytes_from_their_starts(row_axis, column_axis, channels, out_channels, seed, extremes):
    (rows, height), (columns, width) = row_axis, column_axis
    rng = np.random.default_rng(seed)
    (needed_rows, most_rows), (needed_columns, most_columns) = samples_of(rows, height), samples_of(columns, width)
    dims = (channels, most_rows, most_columns)
    codes = rng.choice([0, MOST], dims) if extremes else rng.integers(0, MOST + 1, dims)
    if leaves_a_tap_out(rows):
        codes[:, needed_rows - 1] = 0
    if leaves_a_tap_out(columns):
        codes[:, :, needed_columns - 1] = 0
    shape = (out_channels, channels, TAPS, TAPS)
    weight = rng.choice([-8, 7], shape) if extremes else rng.integers(-8, 8, shape)
    bias = rng.integers(-(2**20), 2**20, out_channels)
    scale = 1 << scale_bits((rows.stride, columns.stride))
    combined = transform_weights(rows, columns, weight)
    got = np.zeros((out_channels, height + 1, width + 1), "int64")
    for (r, top, y), (c, left, x) in product(tiles_of(rows), tiles_of(columns)):
        constants = starts(r, c, combined.sum(-1), scale * bias, MOST)
        planes = np.zeros((len(r.planes), len(c.planes), out_channels), "int64")
        window = codes[:, y : y + r.samples, x : x + c.samples]
        bytes_ = np.array(r.inputs) @ window @ np.array(c.inputs).T
        bytes_ += np.array([[offset(a, b, MOST) for b in c.inputs] for a in r.inputs])
        assert bytes_.min() >= 0 and bytes_.max() <= max(widest(r, MOST), widest(c, MOST))
        for (i, row), (j, column) in product(enumerate(r.planes), enumerate(c.planes)):
            for a, b in product(range(row.count), range(column.count)):
                used = combined[row.weight + a, column.weight + b]
                planes[i, j] += used @ bytes_[:, row.product + a, column.product + b]
        sums = [stepped(c, *row) for row in zip(planes, constants, strict=True)]
        tile = np.einsum("ibo,ia->oab", np.array(sums), np.array([plane.signs for plane in r.planes]))
        got[:, top : top + r.outputs, left : left + c.outputs] = tile
    for y, x in product(range(height), range(width)):
        window = codes[:, y * rows.stride :, x * columns.stride :][:, :TAPS, :TAPS]
        wanted = np.einsum("ocij,cij->o", weight, window) + bias
        np.testing.assert_array_equal(got[:, y, x], scale * wanted)


ALGORITHMS = {
    f"stride {stride}, {name}": axis(stride, outputs, True).segments[0].algorithm
    for stride in (1, 2)
    for outputs, name in ((2, "two outputs"), (1, "one output"))
}


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
@pytest.mark.parametrize("most", [1, 15, MOST])
def test_offset_and_width_are_the_least_that_hold_every_combination(algorithm, most):
    reached = []
    for rows, columns in product(algorithm.inputs, repeat=2):
        signs = np.outer(rows, columns)
        shift = offset(rows, columns, most)
        assert (signs * np.where(signs < 0, most, 0)).sum() + shift == 0
        reached.append((signs * np.where(signs > 0, most, 0)).sum() + shift)
    assert max(reached) == widest(algorithm, most)
    assert widest(algorithm, MOST) <= 255


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("strides", list(product([1, 2], repeat=2)), ids=str)
def test_combinations_of_4_bit_weights_fit_int8(strides, split):
    """The sign of every coefficient at its worst."""
    rows, columns = (axis(stride, 3, split) for stride in strides)
    for row, column in product(rows.weights, columns.weights):
        signs = np.outer(row, column)
        for worst in (np.where(signs > 0, 7, -8), np.where(signs > 0, -8, 7)):
            assert -128 <= (signs * worst).sum() <= 127
