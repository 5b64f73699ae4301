"""Sums of four products against int64, at the ends of every range of codes and weights."""

import re

import numpy as np
import pytest
from cases import VALUES, fill
from hypothesis import given, settings
from hypothesis import strategies as st
from levels import assembly, run
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import Format
from schedules.cpu import conv2d_direct
from schedules.cpu.dot4 import ByteProducts, Vnni, WideVnni, WordProducts, dot4, layer_dot4
from schedules.cpu.intrin import argument, load, store
from schedules.target import find_target
from schedules.workload import Conv2d, Dense, Epilogue

# codes and weights as the layers and the transforms of Winograd's algorithm have them
RANGES = [(15, 8), (15, 128), (60, 72), (127, 128), (128, 128), (252, 72), (255, 8), (255, 64), (255, 65), (255, 128)]


def kernel(dot, words: int):
    """``(acc, x, w, out)``: the sums of as many vectors of codes and weights."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        acc = argument("acc", (16,), "int32")
        x, w = argument("x", (words * 64,), "uint8"), argument("w", (words * 64,), "int8")
        out = argument("out", (16,), "int32")
        xs = [part for word in range(words) for part in dot.x(load(x, word * 64, "uint8x64"))]
        ws = [part for word in range(words) for part in dot.w(load(w, word * 64, "int8x64"))]
        store(out, 0, dot.add(load(acc, 0, "int32x16"), xs, ws))
    return builder.get()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(RANGES), st.sampled_from(VALUES), st.sampled_from([-1, 1]), st.integers(0, 2**32))
def test_equals_int64(level, limits, kind, sign, seed):
    most_x, most_w = limits
    dot = dot4(level, 2 * most_x * most_w)
    rng = np.random.default_rng(seed)
    x = fill(rng, kind, 0, most_x, (dot.words, 64)).astype("uint8")
    w = (sign * fill(rng, kind, -most_w, most_w, (dot.words, 64), other=True)).clip(-128, 127).astype("int8")
    acc = rng.integers(-(2**30), 2**30, 16).astype("int32")
    got = run(kernel(dot, dot.words), [acc, x.ravel(), w.ravel()], (16,), "int32", level)
    products = x.astype("int64") * w
    np.testing.assert_array_equal(got, acc + products.reshape(dot.words, 16, 4).sum((0, 2)))


@pytest.mark.parametrize(
    ("target", "products", "way", "words"),
    [
        ("avx512-vnni", 2**16, WideVnni, 1),
        ("avx-vnni", 2**16, Vnni, 1),
        ("avx2", 2 * 15 * 8, ByteProducts, 4),
        ("avx2", 2**15 - 1, ByteProducts, 1),
        ("avx2", 2**15, WordProducts, 2),
    ],
)
def test_the_way_of_a_level(target, products, way, words):
    dot = dot4(find_target(target), products)
    assert type(dot) is way
    assert dot.words == words


@pytest.mark.parametrize(("code", "bits", "way"), [("uint8", 8, WordProducts), ("uint8", 4, ByteProducts)])
def test_layers_on_avx2(code, bits, way):
    assert type(layer_dot4(find_target("avx2"), Dense(1, 16, 16, Format(code), bits))) is way


@pytest.mark.parametrize("bits", [4, 8])
def test_avx_vnni_is_encoded_without_avx512(bits):
    x = Format("uint8", "NCHW16c")
    epilogue = Epilogue(x, 0, 0, 255, 34)
    workload = Conv2d(1, 32, 8, 8, 32, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, x, 0, bits, epilogue)
    target = find_target("avx-vnni")
    text = assembly(conv2d_direct.build(conv2d_direct.default(workload, target, 1), workload, target), target)
    assert re.search(r"\{vex\}\s+vpdpbusd\s.*%ymm", text)
    assert not re.search(r"(?<!\{vex\})\s+vpdpbusd", text)
    assert not re.search(r"%zmm|%[xy]mm(1[6-9]|[23]\d)|%k[0-7]", text)
