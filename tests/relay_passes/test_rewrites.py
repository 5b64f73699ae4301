"""What each pass changes, and what it leaves."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn
from tvm import ir, relax, tirx

from hawqtvm.qnn import reference
from hawqtvm.qnn.formats import Format
from hawqtvm.qnn.packing import pack_words
from relay_passes import attributes
from relay_passes.pipeline import lower
from relay_passes.rewrite import bindings
from schedules.dispatch import choose, io_layouts
from schedules.workload import Elementwise
from tests.nets import NETS, quantized
from tests.relay_passes.stages import after, context_of, input_codes, mixed_plan, model_of, net_context, run

LAYERS = ("qnn.conv2d", "qnn.dense")
REFORMATS = ("qnn.pack", "qnn.unpack", "qnn.layout_transform")


def calls(mod, *names: str) -> list[tuple[relax.Var, ir.Call]]:
    """main's operators, or those of these names, with the variables they are bound to."""
    found = [(b.var, b.value) for b in bindings(mod) if isinstance(b.value, ir.Call)]
    return [(var, call) for var, call in found if not names or call.op.name in names]


def by_tensor(mod) -> dict[str, ir.Call]:
    """{tensor: the last operator that makes it}."""
    return {attributes.read(call)["tensor"]: call for _, call in calls(mod)}


def constants(call: ir.Call) -> list[np.ndarray]:
    return [attributes.constant(arg) for arg in call.args if attributes.is_constant(arg)]


def formats(call: ir.Call) -> list[Format]:
    """Of every activation that the operator reads or writes."""
    a = attributes.read(call)
    texts = [attributes.parse_format(text) for text in a.get("x_formats", ())]
    return [*texts, *(a[key] for key in ("x", "residual", "out", "codes") if key in a)]


def stored(mod) -> dict[relax.Var, Format]:
    """How every tensor that an operator makes is stored, the one of several that a variable takes too."""
    found: dict[relax.Var, Format] = {}
    made = dict(calls(mod))
    for binding in bindings(mod):
        value, key = binding.value, "out"
        if isinstance(value, relax.TupleGetItem):
            value, key = made[value.tuple_value], ("out", "codes")[value.index]
        if isinstance(value, ir.Call):
            found[binding.var] = attributes.read(value)[key]
    return found


def layers(mod) -> dict[str, ir.Call]:
    return {attributes.read(call)["layer"]: call for _, call in calls(mod, *LAYERS)}


class TwoSums(nn.Module):
    """``x + conv(x)`` and ``conv(y) + y``: the sum on either side of the add; then two sums, the larger on either."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.right, self.left = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.small, self.large = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.right(x)
        x = self.left(x) + x
        return self.head(self.small(x) + self.large(x))


@pytest.mark.parametrize("net", NETS)
def test_assign_bits_changes_the_planned_layers_only(net):
    model = model_of(net)
    plan = mixed_plan(model, 1)
    context = net_context(net, plan)
    before, mod = (layers(after(stage, context)) for stage in ("emit", "assign_bits"))
    assert {attributes.read(call)["bits"] for call in before.values()} == {8}
    assert {name: attributes.read(call)["bits"] for name, call in mod.items()} == plan
    assert 4 in plan.values()
    for name, call in mod.items():
        weight, bias = constants(call)
        np.testing.assert_array_equal(weight, model.layers[name].codes[plan[name]])
        source = context.arithmetic.tensors[model.graph.step(name).inputs[0]]
        assert attributes.read(call)["x"] == Format(source.code)
        if plan[name] == 8:
            assert attributes.read(call) == attributes.read(before[name])
            for ours, theirs in zip((weight, bias), constants(before[name]), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_assign_bits_of_eight_changes_nothing():
    context = net_context("residual", 8)
    for (_, before), (_, call) in zip(*(calls(after(s, context)) for s in ("emit", "assign_bits")), strict=True):
        assert attributes.read(before) == attributes.read(call)


@pytest.mark.parametrize("stage", ["dyadic", "fuse", "pack", "layout"])
@pytest.mark.parametrize("net", NETS)
def test_no_float_after_dyadic(net, stage):
    mod = after(stage, net_context(net, 4))
    for var, call in calls(mod):
        for ty in var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]:
            assert str(ty.dtype) in ("uint8", "int16", "int32"), var
        assert all(array.dtype in (np.int8, np.int32) for array in constants(call)), var


def test_dyadic_replaces_each_factor_by_two_numbers():
    context = net_context("residual", 4)
    pairs = zip(calls(after("assign_bits", context)), calls(after("dyadic", context)), strict=True)
    for (_, before), (_, call) in pairs:
        ratios = [array for array in constants(before) if array.dtype == np.float64]
        numbers = constants(call)[len(constants(before)) - len(ratios) :]
        assert len(numbers) == 2 * len(ratios)
        for ratio, b, c in zip(ratios, numbers[::2], numbers[1::2], strict=True):
            np.testing.assert_allclose(b * 2.0**-c, ratio, rtol=2.0**-31)


@pytest.mark.parametrize("residual", ["int16", "uint8", "int32"])
@pytest.mark.parametrize("net", NETS)
def test_fuse_leaves_no_sum_between_operators(net, residual):
    """Every int32 sum of a layer meets its epilogue in the layer; only wide tensors are rescaled on their own."""
    mod = after("fuse", net_context(net, 4, residual))
    made = dict(calls(mod))
    for call in made.values():
        if call.op.name in LAYERS:
            assert "lo" in attributes.read(call)
        if call.op.name in ("qnn.requantize", "qnn.add"):
            sources = [made[x] for x in call.args if not attributes.is_constant(x) and x in made]
            assert all(attributes.epilogue(s, attributes.read(s)) for s in sources if s.op.name in LAYERS)
    graph = model_of(net).graph
    assert set(layers(mod)) == {layer.name for layer in graph.layers}


def test_fuse_keeps_the_order_of_residual_after_sum():
    mod = after("fuse", context_of(quantized(TwoSums(), (3, 4, 4))))
    assert not calls(mod, "qnn.add")
    found = layers(mod)
    with_residual = {name for name, call in found.items() if "residual" in attributes.read(call)}
    assert with_residual == {"right", "left", "large"}
    made = {var: attributes.read(call)["tensor"] for var, call in calls(mod)}
    # the residual stands last among the arguments
    assert [made[found[name].args[-1]] for name in ("right", "left", "large")] == ["stem", "add", "small"]


def test_fuse_drops_a_requantization_that_changes_nothing():
    """An 8-bit layer reads the uint8 residual stream as it lies; a 4-bit one cannot, and int16 is never read so."""
    for bits, residual, dropped in ((8, "uint8", True), (4, "uint8", False), (8, "int16", False)):
        context = net_context("residual", bits, residual)
        before, mod = (
            {t for t in by_tensor(after(stage, context)) if t.endswith(".codes")} for stage in ("dyadic", "fuse")
        )
        assert before
        assert mod == (set() if dropped else before), (bits, residual)


@pytest.mark.parametrize("net", NETS)
def test_layers_of_4_bits_leave_accumulators_room_in_16_bits(net):
    found = layers(after("fuse", net_context(net, 4, "uint8"))).values()
    epilogues = [attributes.workload(call).epilogue for call in found if attributes.read(call)["bits"] == 4]
    assert epilogues or net == "joined output"
    narrow = [e for e in epilogues if e.out.code != "int32"]
    assert all(e.headroom16 >= 1 for e in narrow)


@pytest.mark.parametrize(
    ("target", "taken"), [("avx512-vnni", True), ("avx2", True), ("x86-64", False), ("sm_75", False)]
)
@pytest.mark.parametrize("net", NETS)
def test_pool_becomes_part_of_the_stem_that_it_alone_reads(net, target, taken):
    context = net_context(net, 4, target=target)
    graph = context.arithmetic.graph
    before, mod = (after(stage, context) for stage in ("fuse", "pool"))
    stem = graph.steps[0].name
    (reader, *others) = [step for step in graph.steps if stem in step.inputs]
    wanted = {reader.name: stem} if taken and reader.op == "max_pool2d" and not others else {}
    found = {a["tensor"]: a["layer"] for a in map(attributes.read, layers(mod).values()) if "pool_kernel" in a}
    assert found == wanted
    assert bool(wanted) == (taken and net in ("pools", "vgg"))
    assert set(by_tensor(mod)) == set(by_tensor(before)) - set(wanted.values())
    codes = input_codes(context)
    np.testing.assert_array_equal(run(mod, codes), run(before, codes))


class StemReadTwice(nn.Module):
    """A stem whose output a pool and a convolution read."""

    def __init__(self):
        super().__init__()
        self.stem, self.pool, self.body = nn.Conv2d(3, 8, 1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1, stride=2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.pool(x) + self.body(x))


def test_a_pool_stays_where_others_read_the_stem():
    context = context_of(quantized(StemReadTwice(), (3, 4, 4)), target="avx2")
    assert len(calls(after("pool", context), "qnn.max_pool2d")) == 1


@pytest.mark.parametrize("residual", ["int16", "uint8", "int32"])
@pytest.mark.parametrize("net", NETS)
def test_second_output_takes_each_requantization_of_a_convolution(net, residual):
    context = net_context(net, 4, residual)
    before, mod = (after(stage, context) for stage in ("fuse", "second_output"))
    makers, wanted = dict(calls(before)), {}
    for _, call in calls(before, "qnn.requantize"):
        source = makers.get(call.args[0])
        if source is not None and source.op.name == "qnn.conv2d":
            wanted.setdefault(attributes.read(source)["tensor"], attributes.read(call)["tensor"])
    found = {a["tensor"]: a["codes_tensor"] for a in map(attributes.read, layers(mod).values()) if "codes" in a}
    assert found == wanted
    assert bool(wanted) == (net in ("residual", "branches"))
    assert set(by_tensor(mod)) == set(by_tensor(before)) - set(wanted.values())
    codes = input_codes(context)
    np.testing.assert_array_equal(run(mod, codes), run(before, codes))


class ReadTwice(nn.Module):
    """A sum that an add reads, a layer, and two concats, one of them as a branch of its own scale."""

    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.left, self.right, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        joined = torch.cat([x, self.left(x)], 1)
        return self.head(self.body(x) + x + self.right(joined))


def test_a_convolution_has_one_second_output():
    context = context_of(quantized(ReadTwice(), (3, 4, 4)), 4, "uint8")
    mod = after("second_output", context)
    (source,) = (call for _, call in calls(mod, "qnn.conv2d") if attributes.read(call)["tensor"] == "stem")
    others = [attributes.read(call)["tensor"] for _, call in calls(mod, "qnn.requantize")]
    assert len(others) == 1 and "codes" in attributes.read(source)
    codes = input_codes(context)
    wanted = reference.logits(context.arithmetic, codes)
    np.testing.assert_array_equal(run(lower(context)[0], codes), wanted)


def test_second_output_is_read_with_its_own_numbers():
    """Of the requantization it replaces, none is lost or mixed up with the convolution's."""
    context = net_context("residual", 4, "uint8")
    before, mod = (after(stage, context) for stage in ("fuse", "second_output"))
    wanted = {attributes.read(c)["tensor"]: attributes.workload(c) for _, c in calls(before, "qnn.requantize")}
    fused = [call for call in layers(mod).values() if "codes" in attributes.read(call)]
    assert fused
    for call in fused:
        old, codes = wanted[attributes.read(call)["codes_tensor"]], attributes.workload(call).epilogue.codes
        assert old == Elementwise(old.dims, (codes.y,), codes.out, codes.zero_point, codes.lo, codes.hi)


@pytest.mark.parametrize("net", NETS)
def test_pack_makes_words_of_all_four_bits(net):
    model = model_of(net)
    plan = mixed_plan(model, 1)
    mod = after("pack", net_context(net, plan))
    made = {var: call.op.name for var, call in calls(mod)}
    for _, call in calls(mod):
        name, a = call.op.name, attributes.read(call)
        sources = {made.get(x) for x in call.args if not attributes.is_constant(x)}
        if name == "qnn.concat" and a["out"].code == "uint4":
            assert sources == {"qnn.unpack"}
        elif name == "qnn.pack":
            assert sources == {"qnn.concat"}
        else:
            assert sources.isdisjoint({"qnn.unpack", "qnn.concat"}) or a["x"].code != "uint4"
            packed = [f.packed for f in formats(call) if f.code == "uint4"]
            assert all(packed) or name == "qnn.unpack"
    for name, call in layers(mod).items():
        codes = model.layers[name].codes[plan[name]]
        np.testing.assert_array_equal(constants(call)[0], pack_words(codes, 1) if plan[name] == 4 else codes)


@pytest.mark.parametrize("target", ["x86-64", "avx512-vnni"])
@pytest.mark.parametrize(("net", "bits"), [(net, bits) for net in NETS for bits in (4, 8)])
def test_layout_converts_each_tensor_once_and_only_where_layouts_differ(net, bits, target):
    context = net_context(net, bits, target=target)
    mod = after("layout", context)
    made, held = dict(calls(mod)), stored(mod)
    result = bindings(mod)[-1].value
    read = {result}.union(*({x for x in call.args if isinstance(x, relax.Var)} for call in made.values()))
    done = Counter()
    for var, call in made.items():
        a = attributes.read(call)
        if call.op.name == "qnn.layout_transform":
            assert a["x"] != a["out"]
            assert made.get(call.args[0]) is None or made[call.args[0]].op.name != "qnn.layout_transform"
            done[call.args[0], a["out"].layout] += 1
            assert var in read
            continue
        workload = attributes.workload(call)
        assert choose(workload, context.target, 1).workload == workload, "the schedule wants what the graph says"
        x_layout, out_layout = io_layouts(workload)
        inputs = [x for x in call.args if not attributes.is_constant(x)]
        for number, x in enumerate(inputs):
            given = held[x].layout if x in held else "NCHW"
            is_residual = "residual" in a and number == len(inputs) - 1
            assert given == (out_layout if is_residual else x_layout)
    assert max(done.values(), default=0) <= 1
    assert attributes.read(made[result])["out"].layout == "NCHW"


@pytest.mark.parametrize("net", NETS)
def test_schedule_names_its_kernels(net):
    context = net_context(net, 4)
    mod, kernels = lower(context)
    graph = model_of(net).graph
    functions = {var.name_hint: f for var, f in mod.functions.items() if isinstance(f, tirx.PrimFunc)}
    assert sorted(k.name for k in kernels) == sorted(functions)
    assert all(functions[k.name].attrs["layer"] == k.layer for k in kernels)
    assert len({k.tensor for k in kernels}) == len(kernels)
    assert sorted(k.layer for k in kernels if k.op in LAYERS) == sorted(layer.name for layer in graph.layers)
    assert {k.layer for k in kernels} <= {step.name for step in graph.steps}
    called = [call.args[0].name_hint for _, call in calls(mod)]
    assert called == [k.name for k in kernels]
    assert {k.tensor: k.dims[1:] for k in kernels if k.tensor in graph.tensors}.items() <= {
        step.name: step.dims for step in graph.steps
    }.items()
    assert {k.layer: k.bits for k in kernels if k.bits} == context.arithmetic.layer_bits


def test_schedule_calls_step_for_each_kernel():
    seen = []
    _, kernels = lower(net_context("vgg", 8), seen.append)
    assert seen == [k.layer for k in kernels]


def test_reformats_appear_where_the_passes_make_them():
    context = net_context("branches", 4)
    names = {stage: {c.op.name for _, c in calls(after(stage, context))} for stage in ("fuse", "pack", "layout")}
    assert names["fuse"].isdisjoint(REFORMATS)
    assert names["pack"] & set(REFORMATS) == {"qnn.pack", "qnn.unpack"}
    assert names["layout"] > names["pack"]
    assert set(chain.from_iterable(names.values())) >= set(REFORMATS)
