"""Pass 2.  Real rescaling factors --> dyadic numbers b / 2**c.  From here on there is no float."""

import numpy as np
import tvm
from tvm import ir, relax

from hawqtvm.qnn.dyadic import dyadic as dyadic_numbers
from relay_passes import attributes
from relay_passes.context import Context
from relay_passes.rewrite import rebuild


def dyadic(mod: tvm.IRModule, context: Context) -> tvm.IRModule:
    """``requantize(x, ratio float64) --> requantize(x, b int32, c int32)``; the same for add and avg_pool2d."""

    def visit(bb, call: ir.Call, var):
        args, layer = [], attributes.read(call)["layer"]
        for arg in call.args:
            if attributes.is_constant(arg) and attributes.constant(arg).dtype == np.float64:
                args += [relax.const(n.astype("int32")) for n in dyadic_numbers(attributes.constant(arg), layer)]
            else:
                args.append(arg)
        return ir.Call(call.op, args, call.attrs)

    return rebuild(mod, visit)
