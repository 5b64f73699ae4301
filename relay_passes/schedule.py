"""Pass 6.  Every operator --> a call of its own kernel, built by the schedule that takes it.

``qnn.conv2d(x, w, bias, b, c) --> call_tir(kernel, x, the schedule's own constants)``.  The kernel carries the layer's
name; the returned :class:`Kernel` rows are the map from kernels to layers that the manifest keeps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import ir, relax

from hawqtvm.qnn.formats import Format
from hawqtvm.qnn.packing import unpack_words
from relay_passes import attributes, dialect
from relay_passes.context import Context
from relay_passes.rewrite import rebuild
from schedules.dispatch import Choice, choose

LAYERS = ("qnn.conv2d", "qnn.dense")


@dataclass(frozen=True)
class Kernel:
    """What a scheduled kernel is: its PrimFunc's name, layer, the graph tensor it makes and that tensor's storage."""

    name: str
    op: str
    layer: str
    tensor: str
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


def schedule(mod: tvm.IRModule, context: Context, step: Callable[[str], None]) -> tuple[tvm.IRModule, list[Kernel]]:
    """``step(name)`` is called as each kernel is built."""
    kernels: list[Kernel] = []

    def visit(bb: relax.BlockBuilder, call: ir.Call, var: relax.Var):
        a = attributes.read(call)
        workload = attributes.workload(call)
        choice = choose(workload, context.target, context.threads, context.tuned)
        activations = [x for x in call.args if not attributes.is_constant(x)]
        constants = []
        if call.op.name in LAYERS:
            inputs = a["x_dims"][1] // a.get("groups", 1)
            arrays = layer_arrays(call, a, inputs)
            constants = [relax.const(c) for c in choice.schedule.constants(choice.config, choice.workload, *arrays)]
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
                a.get("bits"),
                choice,
                a["out"],
                dialect.out_dims(call),
            )
        )
        step(a["layer"])
        return relax.call_tir(function, [activations[0], *constants, *activations[1:]], out_ty=dialect.infer(call, bb))

    return rebuild(mod, visit), kernels
