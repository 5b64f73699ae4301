"""Quantized graph -> Relax in the QNN dialect: one or two operators a step, named, scales still real numbers."""

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import ir, relax

from hawqtvm.qnn.formats import Format
from hawqtvm.qnn.graph import LAYERS, Step
from hawqtvm.qnn.model import Arithmetic
from relay_passes import dialect


@dataclass(frozen=True)
class Operator:
    """An operator that reads activations (the names in ``inputs``; "" is the operator before it) and constants."""

    name: str
    inputs: tuple[str, ...]
    constants: tuple[np.ndarray, ...]
    attributes: dict

    def call(self, activations: list) -> ir.Call:
        # left to itself relax.const makes a float64 array a float32 one
        constants = [relax.const(np.ascontiguousarray(c), str(c.dtype)) for c in self.constants]
        return dialect.call(self.name, [*activations, *constants], **self.attributes)


def operators(arithmetic: Arithmetic, batch: int, step: Step) -> list[Operator]:
    """A step under the arithmetic's plan.  A layer is its convolution and then the requantization of its sum."""
    graph, p = arithmetic.graph, arithmetic.parameters(step)
    dims = [(batch, *graph.dims(i)) for i in step.inputs]
    formats = [Format(arithmetic.tensors[i].code if arithmetic.tensors[i] else "int32") for i in step.inputs]
    names = {"layer": step.name, "tensor": step.name}
    out = Format(p.out.code) if p.out else Format("int32")
    window = {"kernel": step.kernel, "strides": step.strides, "padding": step.padding}
    ratios = tuple(np.atleast_1d(np.asarray(r, "float64")) for r in p.ratios)
    clip = {} if p.out is None else {"out": out, "zero_point": p.out.zero_point, "lo": p.lo, "hi": p.hi}
    if step.op in LAYERS:
        place = window | {"dilation": step.dilation, "groups": step.groups} if step.op == "conv2d" else {}
        layer = Operator(
            f"qnn.{step.op}",
            step.inputs,
            (p.weight, p.bias),
            names
            | place
            | {
                "x_dims": dims[0],
                "x": formats[0],
                "x_zero_point": p.in_zero_points[0],
                "channels": step.dims[0],
                "bits": p.bits,
                "out": Format("int32"),
            },
        )
        if p.out is None:
            return [layer]
        return [
            layer,
            Operator(
                "qnn.requantize",
                ("",),
                ratios,
                names | clip | {"x_dims": (batch, *step.dims), "x_formats": ["int32.NCHW"], "x_zero_points": [0]},
            ),
        ]
    if step.op in ("requantize", "add"):
        return [
            Operator(
                f"qnn.{step.op}",
                step.inputs,
                ratios,
                names
                | clip
                | {
                    "x_dims": dims[0],
                    "x_formats": [f"{f.code}.{f.layout}" for f in formats],
                    "x_zero_points": list(p.in_zero_points),
                },
            )
        ]
    if step.op == "avg_pool2d":
        return [
            Operator(
                "qnn.avg_pool2d",
                step.inputs,
                ratios,
                names | clip | window | {"x_dims": dims[0], "x": formats[0], "x_zero_point": p.in_zero_points[0]},
            )
        ]
    if step.op == "max_pool2d":
        return [
            Operator(
                "qnn.max_pool2d",
                step.inputs,
                (),
                names | window | {"dilation": step.dilation, "x_dims": dims[0], "x": formats[0], "out": out},
            )
        ]
    return [
        Operator(
            "qnn.concat",
            step.inputs,
            (),
            names | {"branches": [d[1] for d in dims], "x_dims": dims[0], "x": formats[0], "out": out},
        )
    ]


def emit(arithmetic: Arithmetic, batch: int) -> tvm.IRModule:
    """``main(input: uint8 (N, C, H, W)) -> int32 (N, O, H, W)``; tensors are NCHW and unpacked, scales float64."""
    dialect.register()
    graph = arithmetic.graph
    bb = relax.BlockBuilder()
    env = {"input": relax.Var("input", relax.TensorType((batch, *graph.input_dims), "uint8"))}
    with bb.function("main", [env["input"]]):
        with bb.dataflow():
            for step in graph.steps:
                for operator in operators(arithmetic, batch, step):
                    value = bb.emit(operator.call([env[i] for i in operator.inputs]), step.name)
                    env |= {step.name: value, "": value}
            out = bb.emit_output(env[graph.output.name])
        bb.emit_func_output(out)
    return bb.get()
