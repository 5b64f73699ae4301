"""A Relax module of several kernels, run and traced."""

from types import SimpleNamespace

import numpy as np
import pytest
import tvm
from tvm import relax, te

from hawqtvm.emulator.program import EmulatedProgram
from hawqtvm.errors import BadInput
from schedules.target import find_target

DIMS = (2, 3, 4, 4)


def bound(arguments: list, outputs: list):
    """A PrimFunc in which each output has threads of its own."""
    sch = tvm.s_tir.Schedule(te.create_prim_func([*arguments, *outputs]))
    for out in outputs:
        blocks, threads = sch.split(sch.fuse(*sch.get_loops(sch.get_sblock(out.op.name))), [None, 16])
        sch.bind(blocks, "blockIdx.x")
        sch.bind(threads, "threadIdx.x")
    return sch.mod["main"].with_attr("tirx.noalias", True).without_attr("global_symbol")


def module() -> tvm.IRModule:
    """``sums, doubled = first(x); logits = last(doubled, weights)``, where ``weights = grown(constant)``."""
    x = te.placeholder(DIMS, "uint8", name="x")
    w = te.placeholder(DIMS[1:], "int32", name="w")
    sums = te.compute(DIMS, lambda *i: x[i].astype("int32") + 7, name="sums")
    doubled = te.compute(DIMS, lambda *i: x[i].astype("int32") * 2, name="doubled")
    y = te.placeholder(DIMS, "int32", name="y")
    last = te.compute(DIMS, lambda n, *i: y[(n, *i)] * w[i], name="last")
    grown = te.compute(DIMS[1:], lambda *i: w[i] + 1, name="grown")
    type = relax.TensorType(DIMS, "int32")
    bb = relax.BlockBuilder()
    with bb.function("expand_weights", []):
        with bb.dataflow():
            constant = relax.const(np.arange(48, dtype="int32").reshape(DIMS[1:]))
            call = relax.call_tir(
                bb.add_func(bound([w], [grown]), "grow"), [constant], relax.TensorType(DIMS[1:], "int32")
            )
            out = bb.emit_output(relax.Tuple([bb.emit(call)]))
        bb.emit_func_output(out)
    codes = relax.Var("codes", relax.TensorType(DIMS, "uint8"))
    weights = relax.Var("weights", relax.TupleType([relax.TensorType(DIMS[1:], "int32")]))
    with bb.function("main", [codes, weights]):
        with bb.dataflow():
            both = bb.emit(relax.call_tir(bb.add_func(bound([x], [sums, doubled]), "first"), [codes], [type, type]))
            second = bb.emit(relax.TupleGetItem(both, 1))
            expanded = bb.emit(relax.TupleGetItem(weights, 0))
            function = bb.add_func(bound([y, w], [last]), "last")
            out = bb.emit_output(relax.call_tir(function, [second, expanded], type))
        bb.emit_func_output(out)
    return bb.get()


@pytest.fixture(scope="module")
def program():
    kernels = [
        SimpleNamespace(name="first", op="qnn.conv2d", layer="conv", tensor="conv.out", codes="conv.codes"),
        SimpleNamespace(name="last", op="qnn.add", layer="conv", tensor="added", codes=None),
    ]
    return EmulatedProgram(module(), kernels, find_target("sm_75"))


def test_run_and_trace(program):
    codes = np.random.default_rng(0).integers(0, 256, DIMS, "uint8")
    wide = codes.astype("int32")
    logits = wide * 2 * (np.arange(48, dtype="int32").reshape(DIMS[1:]) + 1)
    np.testing.assert_array_equal(program.run(codes), logits)
    trace = program.trace(codes)
    assert list(trace) == ["conv", "conv.codes", "added"]
    for got, wanted in zip(trace.values(), (wide + 7, wide * 2, logits), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("codes", [np.zeros((1, 3, 4, 4), "uint8"), np.zeros(DIMS, "float32")])
def test_other_codes_are_refused(program, codes):
    with pytest.raises(BadInput, match="the program takes uint8 codes"):
        program.run(codes)
