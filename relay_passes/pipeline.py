"""The passes in their order: quantized graph in, module of scheduled integer kernels out."""

from collections.abc import Callable

import tvm

from hawqtvm.qnn.formats import Format
from relay_passes.assign_bits import assign_bits
from relay_passes.check import BLOCKS, check, check_sizes
from relay_passes.context import Context
from relay_passes.dyadic import dyadic
from relay_passes.emit import emit
from relay_passes.fuse import fuse
from relay_passes.layout import layout
from relay_passes.lift import lift
from relay_passes.pack import pack
from relay_passes.pool import pool
from relay_passes.schedule import Kernel, schedule
from relay_passes.second_output import second_output

# each maps a module and the context to a module that is well formed and still runs
REWRITES = (assign_bits, dyadic, fuse, pool, second_output, pack, layout)


def laid_out(context: Context) -> tvm.IRModule:
    """The module as the schedules meet it: every rewrite done, each operator in its layout."""
    from hawqtvm.qnn.model import Arithmetic

    check_sizes(context.arithmetic.graph, context.batch, Format("int16", "HWNC") if context.on_gpu else BLOCKS)
    eight = Arithmetic(context.arithmetic.model, context.arithmetic.model.bits(8), context.arithmetic.residual)
    mod = emit(eight, context.batch)
    for rewrite in REWRITES:
        mod = rewrite(mod, context)
    return mod


def lower(context: Context, step: Callable[[str], None] = lambda name: None) -> tuple[tvm.IRModule, list[Kernel]]:
    """Runs every pass; ``step(layer)`` is called as each kernel is built.  Raises CheckFailed where a proof fails."""
    mod, kernels = schedule(laid_out(context), context, step)
    mod = lift(mod)
    return check(mod, context, kernels), kernels
