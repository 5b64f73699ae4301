"""Pass 4.  The max pool of a stem's codes --> part of the stem, which then requantizes what wins only.

``pool(conv(x)) --> conv(x; pool)`` where nothing else reads the convolution and the direct schedule of CPUs takes it.
"""

from collections import Counter

import tvm
from tvm import ir, relax

from relay_passes import attributes
from relay_passes.context import Context
from relay_passes.rewrite import bindings, rebuild
from schedules.cpu.conv2d_direct import formats


def pool(mod: tvm.IRModule, context: Context) -> tvm.IRModule:
    if context.on_gpu:
        return mod
    calls = {b.var: b.value for b in bindings(mod) if isinstance(b.value, ir.Call)}
    read = Counter(arg for call in calls.values() for arg in call.args if isinstance(arg, relax.Var))
    pooled = {}  # by the pool's variable, its convolution's and the two in one
    for var, call in calls.items():
        maker = calls.get(call.args[0])
        if call.op.name != "qnn.max_pool2d" or maker is None or maker.op.name != "qnn.conv2d" or read[call.args[0]] > 1:
            continue
        both = _together(maker, attributes.read(call))
        if both is not None and formats(attributes.workload(both), context.target):
            pooled[var] = call.args[0], both.attrs
    stems = {stem: var for var, (stem, _) in pooled.items()}
    made: dict[relax.Var, list] = {}

    def visit(bb: relax.BlockBuilder, call: ir.Call, var: relax.Var):
        if var in stems:
            made[stems[var]] = list(call.args)
            return None
        if var in pooled:
            stem, attrs = pooled[var]
            return ir.Call(calls[stem].op, made[var], attrs)
        return call

    return rebuild(mod, visit)


def _together(conv: ir.Call, a: dict) -> ir.Call | None:
    """A convolution and the pool of attributes ``a``, if it is a plain one and the convolution has an epilogue."""
    if "lo" not in attributes.read(conv) or a["dilation"] != (1, 1):
        return None
    window = {f"pool_{key}": a[key] for key in ("kernel", "strides", "padding")}
    return attributes.changed(conv, tensor=a["tensor"], **window)
