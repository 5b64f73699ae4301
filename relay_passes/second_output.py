"""Pass 5.  The requantization of a convolution's codes --> the convolution's second output.

``y = conv(x); q = requantize(y) --> y, q = conv(x)``: what the wide residual stream's readers of few bits need is made
where the stream is, in registers.  A convolution has room for one; another requantization of its codes stays as it is.
"""

import tvm
from tvm import ir, relax

from relay_passes import attributes
from relay_passes.context import Context
from relay_passes.rewrite import bindings, rebuild


def requantizations(mod: tvm.IRModule) -> dict[relax.Var, tuple[relax.Var, ir.Call]]:
    """{variable of a convolution with an epilogue: its first requantization and that one's variable}."""
    found: dict[relax.Var, tuple[relax.Var, ir.Call]] = {}
    makers = {b.var: b.value for b in bindings(mod) if isinstance(b.value, ir.Call)}
    for var, call in makers.items():
        maker = makers.get(call.args[0])
        if call.op.name != "qnn.requantize" or maker is None or maker.op.name != "qnn.conv2d":
            continue
        if "lo" in attributes.read(maker):
            found.setdefault(call.args[0], (var, call))
    return found


def second_output(mod: tvm.IRModule, context: Context) -> tvm.IRModule:
    wanted = requantizations(mod)
    made: dict[relax.Var, relax.Var] = {}  # by the variable of the module before

    def visit(bb, call: ir.Call, var: relax.Var):
        if var in made:
            return made[var]
        if var not in wanted:
            return call
        target, requantize = wanted[var]
        a = attributes.read(requantize)
        b, c = (int(attributes.constant(number).item()) for number in requantize.args[1:])
        both = bb.emit(
            attributes.changed(
                call,
                codes=a["out"],
                codes_tensor=a["tensor"],
                codes_y_zero_point=a["x_zero_points"][0],
                codes_b=b,
                codes_c=c,
                codes_zero_point=a["zero_point"],
                codes_lo=a["lo"],
                codes_hi=a["hi"],
            )
        )
        made[target] = bb.emit(relax.TupleGetItem(both, 1), target.name)
        return relax.TupleGetItem(both, 0)

    return rebuild(mod, visit)
