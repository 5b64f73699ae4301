"""Pass 10.  Proves the program integer-only and free of overflow; a build that cannot be proved fails.

Nothing is rewritten.  Raises CheckFailed with the kernel or layer and the reason.
"""

import math
import re
from collections import Counter
from itertools import chain

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, tirx

from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.qnn.dyadic import rescaled_bound
from hawqtvm.qnn.formats import Format
from hawqtvm.qnn.graph import LAYERS, Graph, Step
from hawqtvm.qnn.model import Arithmetic
from relay_passes.context import Context
from relay_passes.rewrite import bindings
from relay_passes.schedule import Kernel

DIVISIONS = (tirx.Div, tirx.Mod, tirx.FloorDiv, tirx.FloorMod)
# a name ends with one of these: tirx.call_extern, tirx.tvm_call_packed, ...
OUTSIDE = ("call_packed", "call_cpacked", "call_packed_lowered", "call_cpacked_lowered", "extern")
DEVICE = "cuda.func_call"  # a function in CUDA text, which is the call's last argument
# in such text: a float of C or of PTX, or a division
NOT_INTEGER = re.compile(r"\b(?:float|double|\w*half\w*)\d?\b|\.b?f\d+\b|/")
INT32 = 2**31
BLOCKS = Format("int16", "NCHW16c")


def integer_only(name: str, function: tirx.PrimFunc) -> None:
    """No expression of a float dtype, no division of data but by a power of two, no call of code that is not seen.

    Data is what was loaded from a tensor, directly or through a variable; index arithmetic may divide.
    """
    data: set = set()
    faults: list[str] = []  # an exception would lose its class on the way through the walk

    def holds_data(*expressions) -> bool:
        found = []
        for expr in expressions:
            tvm_ffi.structural_walk(
                expr,
                [
                    (ir.TensorLoad, lambda node: found.append(node) and None),
                    (ir.Var, lambda node: found.append(node) and None if node in data else None),
                ],
            )
        return bool(found)

    def bind(node) -> None:
        if holds_data(node.value):
            data.add(node.var)
        if isinstance(node, tirx.Let):
            visit(node)

    def loop(node: tirx.For) -> None:
        if holds_data(node.min, node.extent):
            data.add(node.loop_var)

    def visit(node) -> None:
        dtype = str(getattr(node.ty, "dtype", ""))
        if "float" in dtype:
            faults.append(f"computes in {dtype}: the program must be integer-only")
        if isinstance(node, DIVISIONS) and holds_data(node.a, node.b):
            divisor = node.b
            power = isinstance(divisor, tirx.IntImm) and divisor.value > 0 and divisor.value & (divisor.value - 1) == 0
            if not power:
                faults.append(f"divides data ({type(node).__name__}): only shifts are allowed")
        if isinstance(node, ir.Call) and isinstance(node.op, ir.Op) and node.op.name.endswith(OUTSIDE):
            faults.append(f"calls {node.args[0]}: what happens there cannot be proved")
        if isinstance(node, ir.Call) and isinstance(node.op, ir.Op) and node.op.name.endswith(DEVICE):
            found = NOT_INTEGER.search(str(node.args[-1].value))
            if found:
                faults.append(f"calls {node.args[0]}, whose text has '{found[0]}': only integers and no division")

    # a variable is bound above its uses
    callbacks = [((tirx.Bind, tirx.Let), bind), (tirx.For, loop), (ir.Expr, visit)]
    tvm_ffi.structural_walk(function.body, callbacks, order="pre")
    if faults:
        raise CheckFailed(f"kernel {name} {faults[0]}")


def check_sizes(graph: Graph, batch: int, most: Format = BLOCKS) -> None:
    """BadInput when a tensor is too large for the kernels' 32-bit offsets; ``most``: of the formats that fill most."""
    for name in graph.tensors:
        stored = math.prod(most.shape((batch, *graph.dims(name))))
        if stored >= INT32:
            raise BadInput(f"batch {batch}: tensor {name} would have {stored} elements, too many; reduce the batch")


def check_kernels(mod: tvm.IRModule) -> None:
    """Every function calls kernels only, on integer tensors only, and every kernel is integer-only."""
    kernels = {var.name_hint: f for var, f in mod.functions.items() if isinstance(f, tirx.PrimFunc)}
    programs = [var.name_hint for var in mod.get_global_vars() if var.name_hint not in kernels]
    for binding in chain.from_iterable(bindings(mod, name) for name in programs):
        value = binding.value
        if isinstance(value, ir.Call) and value.op != ir.Op.get("relax.call_tir"):
            raise CheckFailed(f"{binding.var.name}: {value.op} is not a compiled kernel")
        if "float" in str(binding.var.ty):
            raise CheckFailed(f"{binding.var.name} is a float tensor: the program must be integer-only")
    for name, kernel in kernels.items():
        integer_only(name, kernel)


def sum_bound(arithmetic: Arithmetic, step: Step) -> int:
    """The largest magnitude any partial sum of a step can reach, in any order, from the actual weights."""
    codes = [arithmetic.tensors[i] for i in step.inputs]
    p = arithmetic.parameters(step)
    if step.op in LAYERS:
        low, high = codes[0].limits
        weight = p.weight.reshape(len(p.weight), -1).astype("int64")
        positive, negative = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
        bias = p.bias.astype("int64")
        most = positive * high + negative * low + np.maximum(bias, 0)
        least = negative * high + positive * low + np.minimum(bias, 0)
        return int(max(most.max(), -least.min()))
    reach = max((max(q.limits[1] - q.zero_point, q.zero_point - q.limits[0]) for q in codes if q), default=0)
    return reach * (step.kernel[0] * step.kernel[1] if step.op == "avg_pool2d" else 1)


def check_overflow(arithmetic: Arithmetic) -> dict[str, int]:
    """{step: bound of its int32 values}; CheckFailed when one reaches 2**31, before or after rescaling."""
    bounds = {}
    for step in arithmetic.graph.steps:
        if step.op in ("max_pool2d", "concat"):
            continue
        p = arithmetic.parameters(step)
        bounds[step.name] = bound = sum_bound(arithmetic, step)
        if bound >= INT32:
            raise CheckFailed(
                f"{step.name}: its int32 accumulator can reach {bound}; an input this large could overflow"
            )
        if p.out is None:
            continue
        reach = abs(p.out.zero_point)
        for source, (b, c) in zip(step.inputs, p.dyadic(step.name), strict=True):
            start = bounds[source] if arithmetic.tensors[source] is None else bound
            reach += max(rescaled_bound(start, int(n), int(s)) for n, s in zip(b.ravel(), c.ravel(), strict=True))
        if reach >= INT32:
            raise CheckFailed(f"{step.name}: its rescaled sum can reach {reach}, past int32; check the layer's ranges")
    return bounds


def check(mod: tvm.IRModule, context: Context, kernels: list[Kernel]) -> tvm.IRModule:
    """All three proofs: integer-only kernels, no overflow, every layer of the model compiled once."""
    check_kernels(mod)
    check_overflow(context.arithmetic)
    compiled = Counter(k.layer for k in kernels if k.op in ("qnn.conv2d", "qnn.dense"))
    expected = Counter(s.name for s in context.arithmetic.graph.layers)
    if wrong := sorted(name for name in compiled | expected if compiled[name] != expected[name]):
        raise CheckFailed(f"layer {wrong[0]} was compiled {compiled[wrong[0]]} times, not {expected[wrong[0]]}")
    relax.analysis.well_formed(mod)
    return mod
