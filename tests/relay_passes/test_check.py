"""What the last pass refuses, by name, and what it must accept."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.qnn import reference
from hawqtvm.qnn.graph import Graph, Step, Tensor
from hawqtvm.qnn.model import Arithmetic, LayerWeights, QuantizedModel
from relay_passes.check import check, check_kernels, check_overflow, check_sizes, integer_only, sum_bound
from relay_passes.pipeline import lower
from schedules.cpu.intrin import argument
from tests.relay_passes.stages import after, context_of, net_context, run

INT32 = 2**31


def kernel(value, dtype: str = "int32", extent=lambda x: 8) -> tirx.PrimFunc:
    """``out[i] = value(x, i)`` of an int32 ``x``."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        x, out = argument("x", (8,), "int32"), argument("out", (8,), dtype)
        with T.serial(extent(x)) as i:
            T.buffer_store(out, value(x, i), [i])
    return builder.get()


def let(x, i):
    v = tirx.Var("v", "int32")
    return tirx.Let(v, x[i], tirx.floordiv(v, 3))


def bound_twice(x, i):
    first = T.bind(x[i] + 1)
    return tirx.floordiv(T.bind(first * 2), 3)


DIVIDE_DATA = {
    "directly": lambda x, i: tirx.floordiv(x[i], 3),
    "truncated": lambda x, i: tirx.truncdiv(x[i], 3),
    "modulo": lambda x, i: tirx.floormod(x[i], 3),
    "truncated modulo": lambda x, i: tirx.truncmod(x[i], 3),
    "bound": lambda x, i: tirx.floordiv(T.bind(x[i]), 3),
    "bound twice": bound_twice,
    "let": let,
    "cast": lambda x, i: tirx.floordiv(x[i].astype("int64"), tirx.const(3, "int64")).astype("int32"),
    "reinterpreted": lambda x, i: tirx.floordiv(tirx.reinterpret("uint32", x[i]), tirx.const(3, "uint32")).astype(
        "int32"
    ),
    "by data": lambda x, i: tirx.floordiv(12, x[i]),
    "by minus four": lambda x, i: tirx.floordiv(x[i], -4),
    "data as an index": lambda x, i: x[tirx.floordiv(x[i], 3)],
    "condition": lambda x, i: tirx.if_then_else(tirx.floormod(x[i], 3) == 0, 1, 0),
}
INTEGER = {
    "index": lambda x, i: x[tirx.floordiv(i, 3) + tirx.floormod(i, 3)],
    "bound index": lambda x, i: x[tirx.floordiv(T.bind(i + 5), 3)],
    "power of two": lambda x, i: tirx.floordiv(x[i], 8) + tirx.floormod(x[i], 16),
    "shift": lambda x, i: (x[i] * 5 + 4) >> 3,
}


@pytest.mark.parametrize("how", DIVIDE_DATA)
def test_division_of_data_is_refused(how):
    with pytest.raises(CheckFailed, match="kernel odd divides data"):
        integer_only("odd", kernel(DIVIDE_DATA[how]))


def test_division_of_a_count_that_is_data_is_refused():
    with pytest.raises(CheckFailed, match="divides data"):
        integer_only("odd", kernel(lambda x, i: tirx.floordiv(i, 3), extent=lambda x: x[0]))


@pytest.mark.parametrize("how", INTEGER)
def test_index_arithmetic_and_shifts_are_accepted(how):
    integer_only("even", kernel(INTEGER[how]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_float_arithmetic_is_refused(dtype):
    half = tirx.const(0.5, dtype)
    with pytest.raises(CheckFailed, match=f"kernel odd computes in {dtype}"):
        integer_only("odd", kernel(lambda x, i: (x[i].astype(dtype) * half).astype("int32")))
    with pytest.raises(CheckFailed, match=f"kernel odd computes in {dtype}"):
        integer_only("odd", kernel(lambda x, i: x[i].astype(dtype), dtype))


@pytest.mark.parametrize("call", [tirx.call_extern, tirx.call_pure_extern])
def test_code_from_outside_is_refused(call):
    with pytest.raises(CheckFailed, match="kernel odd calls"):
        integer_only("odd", kernel(lambda x, i: call("int32", "somewhere", x[i])))


def test_packed_function_is_refused():
    with pytest.raises(CheckFailed, match="kernel odd calls"):
        integer_only("odd", kernel(lambda x, i: tirx.call_packed("somewhere", x[i])))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("int f(int x) { return x * 0.5f + (float)x; }", "float"),
        ("int f(int x) { __half2 h; return x; }", "__half2"),
        ('int f(int x) { asm("add.rn.f32 %0, %1;"); return x; }', ".f32"),
        ("int f(int x) { return x / 3; }", "/"),
    ],
)
def test_device_functions_are_refused_where_they_are_not_of_integers(text, found):
    def call(text):
        return kernel(lambda x, i: T.cuda.func_call("f", x[i], source_code=text, return_type="int32"))

    with pytest.raises(CheckFailed, match=f"kernel odd calls .*f.*, whose text has '{re.escape(found)}'"):
        integer_only("odd", call(text))
    mma = 'int f(int x) { asm("mma.sync.aligned.m8n8k32.row.col.s32.u4.s4.s32 %0;"); return x * 3 >> 2; }'
    integer_only("even", call(mma))


@pytest.mark.parametrize("stage", ["emit", "dyadic", "layout"])
def test_operators_that_no_kernel_was_built_for_are_refused(stage):
    with pytest.raises(CheckFailed, match="not a compiled kernel"):
        check_kernels(after(stage, net_context("vgg")))


def test_float_tensor_in_main_is_refused():
    bb = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((8,), "int32"))
    copy = kernel(lambda x, i: x[i].astype("float32"), "float32").without_attr("global_symbol")
    with bb.function("main", [x]):
        with bb.dataflow():
            value = bb.emit(relax.call_tir(bb.add_func(copy, "copy"), [x], relax.TensorType((8,), "float32")), "half")
            out = bb.emit_output(value)
        bb.emit_func_output(out)
    with pytest.raises(CheckFailed, match="half is a float tensor"):
        check_kernels(bb.get())


@pytest.fixture(scope="module")
def lowered():
    context = net_context("vgg", 4)
    return context, *lower(context)


def test_kernel_that_divides_is_found_in_a_whole_program(lowered):
    context, mod, kernels = lowered
    bad = mod.clone()
    bad["extra"] = kernel(DIVIDE_DATA["directly"])
    with pytest.raises(CheckFailed, match="kernel extra divides data"):
        check(bad, context, kernels)


def test_lost_and_repeated_layers_are_named(lowered):
    context, mod, kernels = lowered
    layer = next(k for k in kernels if k.layer == "classifier.1")
    with pytest.raises(CheckFailed, match=r"layer classifier\.1 was compiled 0 times, not 1"):
        check(mod, context, [k for k in kernels if k is not layer])
    with pytest.raises(CheckFailed, match=r"layer classifier\.1 was compiled 2 times, not 1"):
        check(mod, context, [*kernels, layer])
    with pytest.raises(CheckFailed, match="layer stranger was compiled 1 times, not 0"):
        check(mod, context, [*kernels, replace(layer, layer="stranger")])


def one_layer(weight: np.ndarray, bias: np.ndarray, zero_point: int = 0) -> Arithmetic:
    """A 1x1 convolution from uint8 input to int32 logits, at scale 1; ``weight`` int8 ``(O, C)``, ``bias`` ``(O,)``."""
    out_channels, channels = weight.shape
    graph = Graph(
        (channels, 1, 1),
        (Step("conv", "conv2d", ("input",), (out_channels, 1, 1)),),
        {"input": Tensor("input", "input", "input"), "conv": Tensor("logits", "conv", "conv")},
    )
    codes = weight[:, :, None, None]
    layer = LayerWeights(codes.astype("float32"), np.asarray(bias, "float64"), {8: codes}, {8: np.ones(out_channels)})
    ranges = {"input": {"uint8": (1.0, zero_point)}}
    samples = np.zeros((1, channels, 1, 1), "uint8")
    return Arithmetic(QuantizedModel("hand made", graph, {"conv": layer}, ranges, samples), {"conv": 8})


# 127 * 255 * 66310 + 34297 = 2**31 - 1
WIDEST, ROOM = 66310, 34297


@pytest.mark.parametrize("sign", [1, -1])
def test_accumulator_that_could_overflow_is_refused(sign):
    weight = np.stack([np.zeros(WIDEST), np.full(WIDEST, sign * 127)]).astype("int8")
    assert check_overflow(one_layer(weight, [0, sign * ROOM])) == {"conv": INT32 - 1}
    with pytest.raises(CheckFailed, match=f"conv: its int32 accumulator can reach {INT32}"):
        check_overflow(one_layer(weight, [0, sign * (ROOM + 1)]))
    # a bias of the other sign does not help: partial sums count
    with pytest.raises(CheckFailed, match="conv: its int32 accumulator"):
        check_overflow(one_layer(np.full((1, WIDEST + 2), sign * 127, "int8"), [-sign * 10**6]))


def test_the_widest_accepted_accumulator_is_exact():
    arithmetic = one_layer(np.full((1, WIDEST), 127, "int8"), [ROOM])
    context = replace(context_of(arithmetic.model), arithmetic=arithmetic, batch=1)
    mod, _ = lower(context)
    codes = np.full((1, WIDEST, 1, 1), 255, "uint8")
    assert run(mod, codes) == reference.logits(arithmetic, codes) == INT32 - 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(0, 255), st.sampled_from([0, 100, 10**6]))
def test_the_bound_holds_for_partial_sums_in_any_order(seed, channels, zero_point, extent):
    rng = np.random.default_rng(seed)
    weight = rng.choice([rng.integers(-128, 128, channels), rng.choice([-128, 127], channels)])[None].astype("int8")
    arithmetic = one_layer(weight, [rng.integers(-extent, extent + 1)], zero_point)
    step = arithmetic.graph.steps[0]
    p, bound, reached = arithmetic.parameters(step), sum_bound(arithmetic, step), 0
    most, least = np.where(weight > 0, 255, 0), np.where(weight > 0, 0, 255)
    for codes in (most, least, rng.integers(0, 256, weight.shape), rng.choice([0, 255], weight.shape)):
        terms = np.append(weight[0].astype("int64") * codes[0], p.bias)
        for order in (np.argsort(terms), np.argsort(-terms), rng.permutation(len(terms))):
            reached = max(reached, np.abs(np.cumsum(terms[order])).max())
    assert reached == bound


def pooled(size: tuple[int, int], residual: str = "int32") -> Arithmetic:
    """Convolution to the wide stream, a global average over ``size``, a dense layer."""
    steps = (
        Step("conv", "conv2d", ("input",), (1, *size)),
        Step("pool", "avg_pool2d", ("conv",), (1, 1, 1), kernel=size, strides=size),
        Step("fc", "dense", ("pool",), (1, 1, 1)),
    )
    kinds = {"input": "input", "conv": "wide", "pool": "codes", "fc": "logits"}
    layers = {
        name: LayerWeights(np.ones(shape, "float32"), np.zeros(1), {8: np.ones(shape, "int8")}, {8: np.ones(1)})
        for name, shape in (("conv", (1, 1, 1, 1)), ("fc", (1, 1)))
    }
    ranges = {
        "input": {"uint8": (1.0, 0)},
        "conv": {residual: (2.0**-10, 0)},
        "pool": {"uint8": (1.0, 0)},
    }
    graph = Graph((1, *size), steps, {name: Tensor(kind, name, name) for name, kind in kinds.items()})
    model = QuantizedModel("hand made", graph, layers, ranges, np.zeros((1, 1, *size), "uint8"))
    return Arithmetic(model, {"conv": 8, "fc": 8}, residual)


def test_pool_that_could_overflow_is_refused():
    most = 2**21 - 1
    good, bad = pooled((32, 32)), pooled((33, 32))
    assert check_overflow(good)["pool"] == 1024 * most
    step = good.graph.steps[1]
    codes = np.full((1, 1, 32, 32), most)
    assert reference.integer_step(good, step, [codes]).item() == 255
    with pytest.raises(CheckFailed, match=f"pool: its int32 accumulator can reach {1056 * most}"):
        check_overflow(bad)


def test_rescaled_sum_past_int32_is_refused():
    arithmetic = pooled((2, 2))
    assert check_overflow(arithmetic)["conv"] == 255
    arithmetic.model.ranges["conv"]["int32"] = (2.0**-23, 0)
    fine = Arithmetic(arithmetic.model, {"conv": 8, "fc": 8}, "int32")
    assert check_overflow(fine)["conv"] == 255
    arithmetic.model.ranges["conv"]["int32"] = (2.0**-24, 0)
    with pytest.raises(CheckFailed, match="conv: its rescaled sum can reach"):
        check_overflow(Arithmetic(arithmetic.model, {"conv": 8, "fc": 8}, "int32"))


def test_real_networks_pass():
    for net in ("residual", "branches", "pools"):
        bounds = check_overflow(net_context(net, 4, "int32").arithmetic)
        assert all(0 < bound < INT32 for bound in bounds.values())


def test_a_tensor_past_the_offsets_of_the_kernels_is_refused():
    graph = net_context("residual").arithmetic.graph
    largest = max(16 * -(-c // 16) * h * w for c, h, w in (graph.dims(name) for name in graph.tensors))
    check_sizes(graph, (INT32 - 1) // largest)
    with pytest.raises(BadInput, match="reduce the batch"):
        check_sizes(graph, -(-INT32 // largest))
