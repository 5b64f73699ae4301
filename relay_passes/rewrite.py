"""Rebuilding a Relax ``main`` binding by binding: what every pass of this folder is made with."""

from collections.abc import Callable, Sequence

import tvm
from tvm import ir, relax

Visit = Callable[[relax.BlockBuilder, ir.Call, relax.Var], "relax.Expr | None"]


def bindings(mod: tvm.IRModule, name: str = "main") -> list:
    """The bindings of a Relax function, in order."""
    return [b for block in mod[name].body.blocks for b in block.bindings]


def rebuild(mod: tvm.IRModule, visit: Visit, more_params: Sequence[relax.Var] = ()) -> tvm.IRModule:
    """A new main in which ``visit(builder, call with its new arguments, old variable)`` stands for each call.

    ``visit`` may emit more through the builder.  It answers with an expression, with a Tuple of variables for a call
    that makes several tensors, or None for a call that a later one will absorb.  ``more_params`` follow those that main
    has.  Kernels that nothing calls any more disappear.
    """
    main = mod["main"]
    others = {var: f for var, f in mod.functions.items() if var.name_hint != "main"}
    bb = relax.BlockBuilder(tvm.IRModule(others))
    new = {p: p for p in main.params}

    def renamed(expr):
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([renamed(e) for e in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            made = renamed(expr.tuple_value)
            return made.fields[expr.index] if isinstance(made, relax.Tuple) else relax.TupleGetItem(made, expr.index)
        return new.get(expr, expr) if isinstance(expr, relax.Var) else expr

    with bb.function("main", [*main.params, *more_params]):
        with bb.dataflow():
            for binding in bindings(mod):
                value = binding.value
                if isinstance(value, ir.Call):
                    value = ir.Call(value.op, [renamed(a) for a in value.args], value.attrs, value.ty_args)
                    value = visit(bb, value, binding.var)
                else:
                    value = renamed(value)
                if value is not None:
                    known = isinstance(value, relax.Var | relax.Tuple)
                    new[binding.var] = value if known else bb.emit(value, binding.var.name)
            out = bb.emit_output(renamed(main.body.body))
        bb.emit_func_output(out)
    return bb.get()
