"""Pass 1.  Every operator's constants and attributes at 8 bits --> those of the plan, from the checkpoint."""

import tvm
from tvm import ir

from relay_passes import attributes
from relay_passes.context import Context
from relay_passes.emit import operators
from relay_passes.rewrite import rebuild


def assign_bits(mod: tvm.IRModule, context: Context) -> tvm.IRModule:
    """``conv(x uint8, w int8, scales at 8) --> conv(x uint4 or uint8, w of the layer's bits, scales at those)``."""
    planned = {}
    for step in context.arithmetic.graph.steps:
        for operator in operators(context.arithmetic, context.batch, step):
            planned[operator.name, step.name] = operator

    def visit(bb, call: ir.Call, var):
        operator = planned[call.op.name, attributes.read(call)["layer"]]
        return operator.call(list(call.args)[: len(operator.inputs)])

    return rebuild(mod, visit)
