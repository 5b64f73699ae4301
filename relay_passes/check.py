"""Pass 7.  Proves the program integer-only and free of overflow; a build that cannot be proved fails.

Nothing is rewritten.  Raises CheckFailed with the kernel or layer and the reason.
"""

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, tirx

from hawqtvm.errors import CheckFailed
from hawqtvm.qnn.dyadic import rescaled_bound
from hawqtvm.qnn.graph import LAYERS, Step
from hawqtvm.qnn.model import Arithmetic
from relay_passes.context import Context
from relay_passes.rewrite import bindings
from relay_passes.schedule import Kernel

DIVISIONS = (tirx.Div, tirx.Mod, tirx.FloorDiv, tirx.FloorMod)
INT32 = 2**31


def integer_only(name: str, function: tirx.PrimFunc) -> None:
    """No expression of a float dtype, and no division of data by anything but a power of two.

    Data is what was loaded from a tensor, directly or through a bound variable; index arithmetic may divide.
    """
    data: set = set()

    def holds_data(expr) -> bool:
        found = []
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

    def visit(node) -> None:
        dtype = str(getattr(node.ty, "dtype", ""))
        if "float" in dtype:
            raise CheckFailed(f"kernel {name} computes in {dtype}: the program must be integer-only")
        if isinstance(node, DIVISIONS) and (holds_data(node.a) or holds_data(node.b)):
            divisor = node.b
            power = isinstance(divisor, tirx.IntImm) and divisor.value > 0 and divisor.value & (divisor.value - 1) == 0
            if not power:
                raise CheckFailed(f"kernel {name} divides data ({type(node).__name__}): only shifts are allowed")

    tvm_ffi.structural_walk(function.body, [(tirx.Bind, bind), (ir.Expr, visit)])


def check_kernels(mod: tvm.IRModule) -> None:
    """Main calls kernels only, on integer tensors only, and every kernel is integer-only."""
    for binding in bindings(mod):
        value = binding.value
        if isinstance(value, ir.Call) and value.op != ir.Op.get("relax.call_tir"):
            raise CheckFailed(f"{binding.var.name}: {value.op} is not a compiled kernel")
        if "float" in str(binding.var.ty):
            raise CheckFailed(f"{binding.var.name} is a float tensor: the program must be integer-only")
    for var, function in mod.functions.items():
        if isinstance(function, tirx.PrimFunc):
            integer_only(var.name_hint, function)


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
    compiled = [k.layer for k in kernels if k.op in ("qnn.conv2d", "qnn.dense")]
    expected = [s.name for s in context.arithmetic.graph.layers]
    if sorted(compiled) != sorted(expected):
        lost = sorted(set(expected) - set(compiled)) or sorted(set(compiled))
        raise CheckFailed(f"layer {lost[0]} was not compiled exactly once")
    relax.analysis.well_formed(mod)
    return mod
