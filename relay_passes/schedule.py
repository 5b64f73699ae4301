"""Pass 8.  Every operator --> a call of its own kernel, built by the schedule that takes it.

``qnn.conv2d(x, w, bias, b, c) --> call_tir(kernel, x, the schedule's own constants)``; a constant that the schedule
expands becomes ``call_tir(function, stored)`` first.  The kernel carries the layer's name; the returned
:class:`Kernel` rows are the map from kernels to layers that the manifest keeps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import ir, relax, tirx

from hawqtvm.qnn.formats import Format
from hawqtvm.qnn.packing import unpack_words
from relay_passes import attributes, dialect
from relay_passes.context import Context
from relay_passes.rewrite import rebuild
from schedules.dispatch import Choice, choose

LAYERS = ("qnn.conv2d", "qnn.dense")


@dataclass(frozen=True)
class Kernel:
    """What a scheduled kernel is: its PrimFunc's name, layer, the graph tensor it makes and that tensor's storage.

    ``codes``: the tensor of its second output, if it has one.
    """

    name: str
    op: str
    layer: str
    tensor: str
    codes: str | None
    bits: int | None
    choice: Choice
    out: Format
    dims: tuple[int, int, int, int]


def layer_arrays(call: ir.Call, a: dict, inputs: int) -> list:
    """Weight (int8, unpacked), bias, b and c of a layer's operator."""
    arrays = [attributes.constant(x) for x in call.args if attributes.is_constant(x)]
    if a["bits"] == 4:
        arrays[0] = unpack_words(arrays[0], 1, signed=True)[:, :inputs]
    return arrays


def layer_constants(bb: relax.BlockBuilder, call: ir.Call, a: dict, choice: Choice) -> list:
    """What the layer's kernel takes beside activations: the schedule's constants, or calls that expand them.

    A schedule may have ``expand(config, workload)``: for each array of ``constants`` None, or a PrimFunc
    ``(stored, expanded)`` that makes of it what the kernel takes.
    """
    arrays = layer_arrays(call, a, a["x_dims"][1] // a.get("groups", 1))
    stored = [relax.const(c) for c in choice.schedule.constants(choice.config, choice.workload, *arrays)]
    if not hasattr(choice.schedule, "expand"):
        return stored
    functions = choice.schedule.expand(choice.config, choice.workload)
    return [c if f is None else expanded(bb, f, c) for f, c in zip(functions, stored, strict=True)]


def expanded(bb: relax.BlockBuilder, function: tirx.PrimFunc, stored) -> relax.Var:
    """``function(stored)``; the builder keeps one of equal functions."""
    out = function.params[-1]
    kernel = bb.add_func(function.with_attr("op_pattern", 8).without_attr("global_symbol"), "expand")
    return bb.emit(relax.call_tir(kernel, [stored], out_ty=relax.TensorType(out.shape, out.dtype)))


def schedule(mod: tvm.IRModule, context: Context, step: Callable[[str], None]) -> tuple[tvm.IRModule, list[Kernel]]:
    """``step(name)`` is called as each kernel is built."""
    kernels: list[Kernel] = []

    def visit(bb: relax.BlockBuilder, call: ir.Call, var: relax.Var):
        a = attributes.read(call)
        workload = attributes.workload(call)
        choice = choose(workload, context.target, context.threads, context.tuned)
        activations = [x for x in call.args if not attributes.is_constant(x)]
        constants = layer_constants(bb, call, a, choice) if call.op.name in LAYERS else []
        kernel = choice.schedule.build(choice.config, choice.workload, context.target)
        name = a["tensor"].replace(".", "_")
        kernel = kernel.with_attr({"layer": a["layer"], "op_pattern": 8}).without_attr("global_symbol")
        function = bb.add_func(kernel, name)
        kernels.append(
            Kernel(
                function.name_hint,
                call.op.name,
                a["layer"],
                a["tensor"],
                a.get("codes_tensor"),
                a.get("bits"),
                choice,
                a["out"],
                dialect.out_dims(call),
            )
        )
        step(a["layer"])
        arguments = [activations[0], *constants, *activations[1:]]
        return relax.call_tir(function, arguments, out_ty=dialect.out_types(call))

    return rebuild(mod, visit), kernels
