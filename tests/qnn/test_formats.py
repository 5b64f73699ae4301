"""Storage formats and packing: what is stored is what is loaded, and every code lies where the format says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hawqtvm.qnn.formats import BLOCK, CHUNK, Format, fragment_rows
from hawqtvm.qnn.packing import pack_words, unpack_words

FORMATS = [
    *(Format(code, layout) for code in ("uint4", "uint8", "int16", "int32") for layout in ("NCHW", "NCHW16c")),
    Format("uint4", "NCHW", packed=True),
    Format("uint4", "NCHW16c", packed=True),
    Format("uint4", "HWNC", packed=True),
    *(Format(code, "HWNC") for code in ("uint8", "int16", "int32")),
]
DIMS = st.tuples(st.integers(1, 11), st.integers(1, 35), st.integers(1, 3), st.integers(1, 3))
SEEDS = st.integers(0, 2**32 - 1)


def codes_of(fmt: Format, dims, seed: int) -> np.ndarray:
    low, high = fmt.limits
    codes = np.random.default_rng(seed).integers(low, high + 1, dims)
    codes.flat[0], codes.flat[-1] = low, high
    return codes


@given(st.sampled_from(FORMATS), DIMS, SEEDS)
def test_loading_gives_what_was_stored(fmt, dims, seed):
    codes = codes_of(fmt, dims, seed)
    stored = fmt.store(codes)
    assert stored.dtype == fmt.dtype
    assert stored.shape == fmt.shape(dims)
    assert stored.flags.c_contiguous
    np.testing.assert_array_equal(fmt.load(stored, dims[1], dims[0]), codes)


@given(st.sampled_from(FORMATS), DIMS, SEEDS)
def test_channels_past_the_last_are_zero(fmt, dims, seed):
    stored = fmt.store(codes_of(fmt, dims, seed))
    step = {"NCHW": fmt.held, "NCHW16c": BLOCK, "HWNC": CHUNK}[fmt.layout]
    everything = fmt.load(stored, -(-dims[1] // step) * step)
    assert not everything[:, dims[1] :].any()


def nibble(word: np.ndarray, index: int) -> int:
    return int(word) >> 4 * index & 15


@given(DIMS, SEEDS)
def test_each_packed_code_has_its_nibble(dims, seed):
    codes = codes_of(Format("uint4"), dims, seed)
    plain = Format("uint4", "NCHW", packed=True).store(codes)
    blocked = Format("uint4", "NCHW16c", packed=True).store(codes)
    fragments = Format("uint4", "HWNC", packed=True).store(codes)
    for (n, c, h, w), code in np.ndenumerate(codes):
        assert nibble(fragments[h, w, n, c // 8], c % 8) == code
        assert nibble(plain[n, c // 8, h, w], c % 8) == code
        assert nibble(blocked[n, c // 16, h, w, c % 16 // 8], c % 8) == code


@given(DIMS, SEEDS)
def test_fragments_hold_four_bytes_in_a_word(dims, seed):
    fmt = Format("uint8", "HWNC")
    codes = codes_of(fmt, dims, seed)
    words = fmt.store(codes)
    for (n, c, h, w), code in np.ndenumerate(codes):
        assert int(words[h, w, n, c // 4]) >> 8 * (c % 4) & 255 == code


def test_a_batch_fills_or_divides_a_fragment():
    assert [fragment_rows(n) for n in (1, 2, 3, 4, 5, 8, 9, 16, 17)] == [1, 2, 4, 4, 8, 8, 16, 16, 24]


@pytest.mark.parametrize(
    ("code", "layout", "packed"),
    [
        ("int4", "NCHW", False),
        ("uint8", "NHWC", False),
        ("uint8", "NCHW", True),
        ("int32", "NCHW16c", True),
        ("uint4", "HWNC", False),
        ("uint8", "HWNC", True),
    ],
)
def test_there_is_no_other_format(code, layout, packed):
    with pytest.raises(ValueError, match="no such format"):
        Format(code, layout, packed)


@given(st.data(), st.booleans())
def test_words_hold_signed_and_unsigned_values(data, signed):
    shape = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(data.draw(SEEDS))
    values = rng.integers(-8, 8, shape) if signed else rng.integers(0, 16, shape)
    words = pack_words(values, axis)
    assert words.dtype == np.int32
    assert words.shape[axis] == -(-shape[axis] // 8)
    unpacked = np.moveaxis(unpack_words(words, axis, signed), axis, 0)
    assert unpacked.dtype == (np.int8 if signed else np.uint8)
    np.testing.assert_array_equal(unpacked[: shape[axis]], np.moveaxis(values, axis, 0))
    assert not unpacked[shape[axis] :].any()


def test_element_zero_is_in_the_low_bits():
    assert pack_words(np.array([1, 2, 3, 4, 5, 6, 7, 0]), 0).tolist() == [0x07654321]
    assert pack_words(np.array([-1, 0, 0, 0, 0, 0, 0, -8]), 0).view("uint32").tolist() == [0x8000000F]
    assert unpack_words(np.array([0x07654321], "int32"), 0).tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
