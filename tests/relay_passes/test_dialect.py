"""The operators as Relax sees them: types, registration, legalization, and what survives Relax's own passes."""

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import ir, relax, tirx
from tvm.relax.transform import (
    CanonicalizeBindings,
    DeadCodeElimination,
    EliminateCommonSubexpr,
    FoldConstant,
    LegalizeOps,
)

from hawqtvm.qnn import reference
from hawqtvm.qnn.formats import Format
from relay_passes import attributes, dialect
from relay_passes.rewrite import bindings
from tests.nets import NETS
from tests.relay_passes.stages import after, input_codes, net_context, run, stages


def qnn_calls(mod) -> list[ir.Call]:
    return [b.value for b in bindings(mod) if dialect.is_qnn(b.value)]


def tensor_types(var: relax.Var) -> list[relax.TensorType]:
    """Of a variable that is a tensor or several."""
    return list(var.ty.fields) if isinstance(var.ty, relax.TupleType) else [var.ty]


def test_registering_again_does_nothing():
    dialect.register()
    before = sorted(map(str, ir.Op.list_op_names()))
    dialect.register()
    assert sorted(map(str, ir.Op.list_op_names())) == before
    assert set(dialect.OPERATORS) <= set(before)
    for name in dialect.OPERATORS:
        operator = dialect.op(name)
        assert operator.get_attr("FPurity")
        assert operator.get_attr("FInferType") is not None
        assert operator.get_attr("FLegalize") is not None


def test_the_networks_hold_every_operator():
    """What the other tests of this folder run is the whole dialect."""
    seen = set()
    for net in NETS:
        for _, mod in stages(net_context(net, 4, "uint8", target="avx512-vnni")):
            seen |= {call.op.name for call in qnn_calls(mod)}
    assert seen == set(dialect.OPERATORS)


@pytest.mark.parametrize("stage", ["emit", "pack", "layout"])
@pytest.mark.parametrize("net", ["residual", "branches", "pools"])
def test_inferred_types_are_those_of_the_graph_and_of_the_kernels(net, stage):
    context = net_context(net, 4)
    mod, graph = after(stage, context), context.arithmetic.graph
    for binding in bindings(mod):
        if not dialect.is_qnn(binding.value):
            continue
        a = attributes.read(binding.value)
        dims = dialect.out_dims(binding.value)
        if a["tensor"] in graph.tensors:
            assert dims == (context.batch, *graph.dims(a["tensor"]))
        written = [a[key] for key in ("out", "codes") if key in a]
        for ty, fmt in zip(tensor_types(binding.var), written, strict=True):
            assert tuple(map(int, ty.shape)) == fmt.shape(dims)
            assert str(ty.dtype) == fmt.dtype
    legal = LegalizeOps()(mod)
    relax.analysis.well_formed(legal)
    assert not qnn_calls(legal)
    for binding in bindings(legal):
        if not isinstance(binding.value, ir.Call):
            continue
        kernel = legal[binding.value.args[0]]
        assert isinstance(kernel, tirx.PrimFunc)
        types = tensor_types(binding.var)
        for ty, out in zip(types, kernel.params[-len(types) :], strict=True):
            assert tuple(map(int, ty.shape)) == tuple(map(int, out.ty.shape))
            assert str(ty.dtype) == str(out.ty.dtype)


@pytest.mark.parametrize("stage", ["emit", "layout"])
def test_json_keeps_every_attribute(stage):
    context = net_context("branches", 4)
    mod = after(stage, context)
    loaded = tvm.ir.load_json(tvm.ir.save_json(mod))
    assert tvm_ffi.structural_equal(loaded, mod)
    for ours, theirs in zip(qnn_calls(mod), qnn_calls(loaded), strict=True):
        assert attributes.read(ours) == attributes.read(theirs)
        assert ours.op.same_as(theirs.op)


@pytest.mark.parametrize("net", ["residual", "branches"])
def test_relax_passes_lose_no_layer_and_change_no_result(net):
    context = net_context(net, 4)
    mod = after("pack", context)
    cleaned = mod
    for make in (FoldConstant, EliminateCommonSubexpr, CanonicalizeBindings, DeadCodeElimination):
        cleaned = make()(cleaned)
        names = sorted(str(attributes.read(call)["tensor"]) for call in qnn_calls(cleaned))
        assert names == sorted(str(attributes.read(call)["tensor"]) for call in qnn_calls(mod)), make.__name__
    codes = input_codes(context)
    np.testing.assert_array_equal(run(cleaned, codes), reference.logits(context.arithmetic, codes))


def test_dead_operators_are_removed():
    """They are pure: what nothing reads may go."""
    dialect.register()
    x, bb = relax.Var("x", relax.TensorType((1, 8, 2, 2), "uint8")), relax.BlockBuilder()
    formats = {"x": Format("uint4"), "out": Format("uint4", packed=True)}
    with bb.function("main", [x]):
        with bb.dataflow():
            for _ in range(2):
                value = bb.emit(dialect.call("qnn.pack", [x], layer="l", tensor="t", x_dims=(1, 8, 2, 2), **formats))
            out = bb.emit_output(value)
        bb.emit_func_output(out)
    mod = bb.get()
    assert len(qnn_calls(mod)) == 2
    assert len(qnn_calls(DeadCodeElimination()(mod))) == 1
    assert len(qnn_calls(EliminateCommonSubexpr()(mod))) == 1


@pytest.mark.parametrize("layout", ["NCHW", "NCHW16c"])
@pytest.mark.parametrize(("code", "packed"), [("uint4", False), ("uint4", True), ("uint8", False), ("int32", False)])
def test_formats_as_text(code, packed, layout):
    fmt = Format(code, layout, packed)
    assert attributes.parse_format(attributes.format_text(fmt)) == fmt


def test_attributes_come_back_as_they_were():
    values = {
        "layer": "a.b",
        "bits": 4,
        "lo": -(2**31),
        "x_dims": (1, 2, 3, 4),
        "x_formats": ["uint4.NCHW.packed"],
        "out": Format("int16", "NCHW16c"),
    }
    call = dialect.call("qnn.pack", [], **values)
    assert attributes.read(call) == values | {"x_formats": ("uint4.NCHW.packed",)}
    changed = attributes.read(attributes.changed(call, lo=1, tensor="t"))
    assert changed == attributes.read(call) | {"lo": 1, "tensor": "t"}
