"""Pass 9.  What main computes from constants alone is computed once, when the library is loaded.

``main(x) { w = unpack(packed); y = conv(x, w) }
--> expand_weights() -> (w,) { w = unpack(packed) };  main(x, weights) { y = conv(x, weights[0]) }``

Both stand in every module, the tuple being empty where nothing is expanded.
"""

import math

import numpy as np
import tvm
from tvm import ir, relax

from relay_passes.attributes import is_constant
from relay_passes.rewrite import bindings, rebuild

EXPAND = "expand_weights"


def from_constants(value) -> bool:
    return isinstance(value, ir.Call) and all(is_constant(x) for x in value.args[1].fields)


def lift(mod: tvm.IRModule) -> tvm.IRModule:
    """The scheduled module's ``call_tir(function, constants)`` as functions of their own."""
    bb = relax.BlockBuilder(mod)
    lifted = [b for b in bindings(mod) if from_constants(b.value)]
    with bb.function(EXPAND, []):
        with bb.dataflow():
            out = bb.emit_output(relax.Tuple([bb.emit(b.value, b.var.name) for b in lifted]))
        bb.emit_func_output(out)
    weights = relax.Var("weights", relax.TupleType([b.var.ty for b in lifted]))
    index = {b.var: i for i, b in enumerate(lifted)}

    def visit(bb: relax.BlockBuilder, call: ir.Call, var: relax.Var):
        return relax.TupleGetItem(weights, index[var]) if var in index else call

    return rebuild(bb.get(), visit, [weights])


def expanded_bytes(mod: tvm.IRModule) -> int:
    """Bytes that ``expand_weights`` fills."""
    tensors = mod[EXPAND].ret_ty.fields
    return sum(math.prod(int(n) for n in t.shape) * np.dtype(str(t.dtype)).itemsize for t in tensors)
