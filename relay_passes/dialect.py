"""The QNN dialect: Relax operators of the integer graph, with type inference, purity and a legalization.

| operator | arguments | result |
|---|---|---|
| qnn.conv2d, qnn.dense | x, weight, bias | int32 accumulators |
| ... fused | x, weight, bias, b, c, [residual] | codes, or two tensors of them |
| qnn.requantize | x, rescale | codes |
| qnn.add | a, b, rescale of a, rescale of b | codes |
| qnn.avg_pool2d | x, rescale | codes |
| qnn.max_pool2d, qnn.concat, qnn.pack, qnn.unpack, qnn.layout_transform | codes | codes |

A rescale is one float64 constant of ratios before the dyadic pass, the two int32 constants b and c after it; ``(1,)``
or one number a channel.  Attributes (:mod:`relay_passes.attributes`) carry the layer's and the tensor's name, bits,
geometry, clip and formats.  The legalization is the plain kernel of :mod:`schedules.compute`, so every module runs
at every stage.
"""

from dataclasses import replace

import tvm_ffi
from tvm import ir, relax, te, tirx
from tvm.ir import Op

from relay_passes import attributes
from schedules import compute
from schedules.bodies import BODIES
from schedules.workload import AvgPool2d, MaxPool2d

OPERATORS = tuple(attributes.WORKLOADS)


def op(name: str) -> Op:
    return Op.get(name)


def is_qnn(expr) -> bool:
    return isinstance(expr, ir.Call) and isinstance(expr.op, Op) and expr.op.name in OPERATORS


def call(name: str, args: list, **values) -> ir.Call:
    return ir.Call(op(name), args, attributes.make(**values))


def out_dims(expr: ir.Call) -> tuple[int, int, int, int]:
    """Logical ``(N, C, H, W)`` of an operator's result."""
    a, name = attributes.read(expr), expr.op.name
    if name == "qnn.dense":
        return (a["x_dims"][0], a["channels"], 1, 1)
    if name == "qnn.conv2d":
        return attributes.conv2d(expr).out_dims
    if name in ("qnn.max_pool2d", "qnn.avg_pool2d"):
        return MaxPool2d(
            a["x_dims"], a["x"], a["kernel"], a["strides"], a["padding"], a.get("dilation", (1, 1))
        ).out_dims
    if name == "qnn.concat":
        n, _, h, w = a["x_dims"]
        return (n, sum(a["branches"]), h, w)
    return a["x_dims"]


def out_types(expr: ir.Call) -> list[relax.TensorType]:
    """Of what the operator's kernel writes."""
    a, dims = attributes.read(expr), out_dims(expr)
    return [relax.TensorType(a[key].shape(dims), a[key].dtype) for key in ("out", "codes") if key in a]


def infer(expr: ir.Call, _) -> relax.TensorType | relax.TupleType:
    types = out_types(expr)
    return types[0] if len(types) == 1 else relax.TupleType(types)


def rescales(tensors: list[te.Tensor]) -> list[compute.Rescale]:
    """From the trailing constants of an operator: float64 ratios, or pairs of int32."""
    if str(tensors[0].dtype) == "float64":
        return [real_rescale(t) for t in tensors]
    return [compute.channel_rescale(b, c) for b, c in zip(tensors[::2], tensors[1::2], strict=True)]


def real_rescale(ratio: te.Tensor) -> compute.Rescale:
    """``floor(value * ratio + 1/2)``: what the dyadic number will stand for."""
    single = int(ratio.shape[0]) == 1
    half = tirx.const(0.5, "float64")
    return lambda v, c: te.floor(v.astype("float64") * ratio[0 if single else c] + half).astype("int64")


def rescaled_body(expr: ir.Call, tensors: list[te.Tensor]) -> te.Tensor:
    """requantize, add and avg_pool2d, whose rescales may still be real numbers."""
    a = attributes.read(expr)
    if expr.op.name == "qnn.avg_pool2d":
        pool = AvgPool2d(
            a["x_dims"], a["x"], a["x_zero_point"], a["kernel"], a["strides"], a["padding"], 0, 0, a["out"], 0, 0, 0
        )
        total = compute.avg_pool2d_sum(pool, tensors[0])
        operands = [(lambda *at: total[at], 0, *rescales(tensors[1:]))]
    else:
        count = len(a["x_formats"])
        codes = [compute.reader(x, attributes.parse_format(f)) for x, f in zip(tensors, a["x_formats"], strict=False)]
        operands = list(zip(codes, a["x_zero_points"], rescales(tensors[count:]), strict=True))
    dims = out_dims(expr)
    result = compute.rescaled_codes(operands, dims, a["zero_point"], a["lo"], a["hi"])
    return compute.write(lambda *at: result[at], dims, a["out"])


def legalize(bb: relax.BlockBuilder, expr: ir.Call) -> ir.Call:
    a, name = attributes.read(expr), expr.op.name
    if name in ("qnn.requantize", "qnn.add", "qnn.avg_pool2d"):
        tensors = [
            te.placeholder([int(d) for d in x.ty.shape], str(x.ty.dtype), name=f"x{i}") for i, x in enumerate(expr.args)
        ]
        body = [*tensors, rescaled_body(expr, tensors)]
    else:
        workload = attributes.workload(expr)
        if getattr(workload, "weight_bits", 8) == 4 and str(expr.args[1].ty.dtype) == "int8":
            workload = replace(workload, weight_bits=8)  # one weight a byte until the pack pass
        body = BODIES[type(workload)](workload)
    # not bb.call_te: it widens index arithmetic used as data to int64
    kernel = te.create_prim_func(body).with_attr({"tirx.noalias": True, "layer": a["layer"]})
    var = bb.add_func(kernel.without_attr("global_symbol"), a["tensor"].replace(".", "_"))
    return relax.call_tir(var, list(expr.args), out_ty=out_types(expr))


def register() -> None:
    """Makes the operators known to Relax; calling it again does nothing."""
    known = set(map(str, Op.list_op_names()))
    for name in OPERATORS:
        if name not in known:
            tvm_ffi.get_global_func("ir.RegisterOp")(name, f"hawqtvm integer operator {name}")
            op(name).set_attr("FInferType", infer)
            op(name).set_attr("FPurity", True)
            op(name).set_attr("FLegalize", legalize)
