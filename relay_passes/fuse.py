"""Pass 3.  Requantize, clip and residual add --> the epilogue of the layer whose int32 sum they read.

``requantize(conv(x)) --> conv(x; b, c)`` and ``add(conv(x), r) --> conv(x; b, c, r)``.  Of an add's operands the one
that is a sum is fused: which one that is, storage.accumulators decided when the graph was built, since it is part of
the arithmetic.  A requantization that changes nothing disappears.
"""

import tvm
from tvm import ir, relax

from hawqtvm.qnn.dyadic import dyadic
from relay_passes import attributes
from relay_passes.context import Context
from relay_passes.headroom import headroom16, undecided
from relay_passes.rewrite import rebuild

LAYERS = ("qnn.conv2d", "qnn.dense")


def is_identity(call: ir.Call, a: dict) -> bool:
    """Same code, scale and zero point on both sides: the uint8 residual stream read by an 8-bit layer."""
    one = tuple(int(n) for n in dyadic(1.0, "one"))
    source = attributes.parse_format(a["x_formats"][0])
    numbers = tuple(int(n) for arg in call.args[1:] for n in attributes.constant(arg))
    low, high = source.limits
    return (
        source == a["out"]
        and numbers == one
        and a["x_zero_points"] == (a["zero_point"],)
        and a["lo"] <= low
        and a["hi"] >= high
    )


def fuse(mod: tvm.IRModule, context: Context) -> tvm.IRModule:
    sums: dict[relax.Var, ir.Call] = {}  # by the variable of the module before

    def visit(bb, call: ir.Call, var: relax.Var):
        a = attributes.read(call)
        if call.op.name in LAYERS:
            sums[var] = call
            return None
        if call.op.name not in ("qnn.requantize", "qnn.add"):
            return call
        layer = sums.get(call.args[0])
        if layer is None:
            return call.args[0] if call.op.name == "qnn.requantize" and is_identity(call, a) else call
        epilogue = {key: a[key] for key in ("out", "zero_point", "lo", "hi", "tensor")}
        count = len(a["x_formats"])
        numbers = list(call.args)[count:]
        args = [*layer.args, *numbers[:2]]
        if count == 2:
            args.append(call.args[1])
            b, c = (int(attributes.constant(n).item()) for n in numbers[2:])
            epilogue |= {
                "residual": attributes.parse_format(a["x_formats"][1]),
                "residual_zero_point": a["x_zero_points"][1],
                "residual_b": b,
                "residual_c": c,
            }
        weight, bias, *scale = (attributes.constant(arg) for arg in args[1:5])
        ends = undecided(a["lo"], a["hi"], a["zero_point"], attributes.residual(epilogue))
        room = headroom16(weight, bias, attributes.read(layer)["x"].limits[1], *scale, *ends)
        return attributes.changed(layer, args, headroom16=room, **epilogue)

    return rebuild(mod, visit)
