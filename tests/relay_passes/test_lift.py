"""Constants that a schedule expands: expanded in ``expand_weights``, once each, and read by main."""

from types import SimpleNamespace

import numpy as np
import pytest
import tvm
from tvm import ir, relax, te, tirx

from hawqtvm.errors import CheckFailed
from hawqtvm.qnn import reference
from relay_passes.check import check, check_kernels
from relay_passes.executable import build
from relay_passes.lift import EXPAND, expanded_bytes
from relay_passes.pipeline import lower
from relay_passes.rewrite import bindings
from relay_passes.schedule import LAYERS
from schedules import dispatch
from schedules.cpu import portable
from tests.relay_passes.stages import UNOPTIMIZED, input_codes, net_context, run, stages


def invert(shape, dtype: str) -> tirx.PrimFunc:
    stored = te.placeholder(shape, dtype, name="stored")
    return te.create_prim_func([stored, te.compute(shape, lambda *i: ~stored[i])])


@pytest.fixture
def inverting(monkeypatch):
    """The portable schedule with its weights and biases stored inverted; its fused constants it takes as they are."""

    def constants(config, workload, *arrays):
        weight, bias, *rest = portable.constants(config, workload, *arrays)
        return [~weight, ~bias, *rest]

    def expand(config, workload):
        inputs = workload.in_channels // getattr(workload, "groups", 1)
        shape = (workload.out_channels, inputs if workload.weight_bits == 8 else -(-inputs // 8))
        weight = invert((*shape, *getattr(workload, "kernel", ())), "int8" if workload.weight_bits == 8 else "int32")
        unchanged = [] if workload.epilogue is None else [None, None]
        return [weight, invert((workload.out_channels,), "int32"), *unchanged]

    schedule = SimpleNamespace(**{**vars(portable), "constants": constants, "expand": expand})
    monkeypatch.setattr(dispatch, "portable", schedule)
    monkeypatch.setattr(dispatch, "SCHEDULES", ())


@pytest.mark.parametrize("net", ["residual", "branches"])
def test_equals_the_reference_before_and_after(inverting, net):
    context = net_context(net, 4)
    codes = input_codes(context)
    wanted = reference.logits(context.arithmetic, codes)
    found = {name: run(mod, codes) for name, mod in stages(context) if name in ("schedule", "lift")}
    assert len(found) == 2
    for name, logits in found.items():
        np.testing.assert_array_equal(logits, wanted, err_msg=name)


def test_main_keeps_no_work_on_constants(inverting):
    context = net_context("residual", 4)
    mod, kernels = lower(context)
    layers = [k for k in kernels if k.op in LAYERS]
    calls = [b.value for b in bindings(mod) if isinstance(b.value, ir.Call)]
    assert [call.args[0].name_hint for call in calls] == [k.name for k in kernels]
    tensors = mod[EXPAND].ret_ty.fields
    assert len(tensors) == 2 * len(layers)
    assert list(map(str, mod["main"].params[1].ty.fields)) == list(map(str, tensors))


def test_equal_expansions_are_one_function(inverting):
    context = net_context("residual", 4)
    mod, kernels = lower(context)
    names = {k.name for k in kernels}
    shared = [f for var, f in mod.functions.items() if isinstance(f, tirx.PrimFunc) and var.name_hint not in names]
    shapes = {(tuple(map(int, f.params[0].shape)), f.params[0].dtype) for f in shared}
    assert len(shapes) == len(shared) < len(mod[EXPAND].ret_ty.fields)


def test_expanded_tensors_are_aligned_and_counted(inverting):
    mod, _ = lower(net_context("residual", 4))
    weights = relax.VirtualMachine(build(mod, tvm.target.Target(UNOPTIMIZED)), tvm.cpu())[EXPAND]()
    arrays = [np.from_dlpack(tensor) for tensor in weights]
    assert all(array.ctypes.data % 64 == 0 for array in arrays)
    assert sum(array.nbytes for array in arrays) == expanded_bytes(mod) > 0


def test_nothing_to_expand_is_an_empty_tuple():
    mod, _ = lower(net_context("vgg", 4))
    assert len(mod[EXPAND].ret_ty.fields) == len(mod["main"].params[1].ty.fields) == expanded_bytes(mod) == 0


def test_expansions_are_proved_as_kernels_are(inverting):
    context = net_context("residual", 4)
    mod, kernels = lower(context)
    x = te.placeholder((4,), "int8", name="x")
    double = te.create_prim_func([x, te.compute((4,), lambda i: (x[i].astype("float32") * 2.0).astype("int8"))])
    bad = mod.clone()
    bad[bindings(mod, EXPAND)[0].value.args[0]] = double
    with pytest.raises(CheckFailed, match="kernel expand.* computes in float32"):
        check(bad, context, kernels)


def test_an_operator_without_a_kernel_is_found_in_the_expansions():
    bb = relax.BlockBuilder()
    with bb.function(EXPAND, []):
        with bb.dataflow():
            constant = relax.const(np.zeros(4, "int32"))
            out = bb.emit_output(relax.Tuple([bb.emit(relax.op.add(constant, constant), "sum")]))
        bb.emit_func_output(out)
    with pytest.raises(CheckFailed, match="sum: .*add.* is not a compiled kernel"):
        check_kernels(bb.get())
