"""A program for a GPU on a machine without one: its CUDA text run by the emulator, kernel by kernel."""

from collections.abc import Callable

import numpy as np
import tvm
from tvm import ir, relax, tirx

from hawqtvm.emulator import Emulated
from hawqtvm.runtime.artifact import Artifact
from relay_passes.attributes import constant, is_constant
from relay_passes.executable import build
from relay_passes.lift import EXPAND
from relay_passes.rewrite import bindings
from schedules.cuda.launch import launch
from schedules.lowering import cuda_text
from schedules.target import CudaTarget, find_target

UNWRITTEN = 0x5A  # in every byte of memory that no kernel has filled

# told of every kernel: its name and its arguments, the outputs last
After = Callable[[str, list[np.ndarray]], None]


class EmulatedProgram:
    """A lowered module for a GPU: the calls that its host code makes, to the kernels as TVM gives them to nvcc."""

    def __init__(self, module: tvm.IRModule, target: CudaTarget):
        self._module, self._emulated = module, Emulated(cuda_text(module, target.tvm, build))

    def main(self, codes: np.ndarray, after: After = lambda kernel, tensors: None) -> np.ndarray:
        """Logits of input codes.  CheckFailed where a kernel reads or writes what it must not, or races."""
        weights = self._call(EXPAND, [], after)
        return self._call("main", [codes, weights], after)

    def _call(self, name: str, arguments: list, after: After):
        function = self._module[name]
        held = dict(zip(function.params, arguments, strict=True))

        def value(expr):
            if isinstance(expr, relax.Tuple):
                return tuple(value(field) for field in expr.fields)
            if isinstance(expr, relax.TupleGetItem):
                return value(expr.tuple_value)[expr.index]
            return constant(expr) if is_constant(expr) else held[expr]

        for binding in bindings(self._module, name):
            if isinstance(binding.value, ir.Call):
                kernel, given = binding.value.args[:2]
                made = _unwritten(binding.var.ty)
                outputs = made if isinstance(made, tuple) else (made,)
                tensors = [*value(given), *outputs]
                run_kernel(self._emulated, kernel.name_hint, self._module[kernel], tensors)
                after(kernel.name_hint, tensors)
                held[binding.var] = made
            else:
                held[binding.var] = value(binding.value)
        return value(function.body.body)


def run_kernel(emulated: Emulated, name: str, function: tirx.PrimFunc, tensors: list[np.ndarray]) -> None:
    """Launches the device kernel of the PrimFunc ``name`` with its arguments in the PrimFunc's order.

    In the text a tensor may be of wider elements; one that is never accessed is not there.
    """
    found = launch(name, function)
    seen_as = {parameter.name: parameter.dtype for parameter in emulated.kernels[found.kernel].parameters}
    named = dict(zip(found.arguments, tensors, strict=True))
    given = {name: named[name].view(dtype) for name, dtype in seen_as.items()}
    emulated.run(found.kernel, found.grid, found.block, given)


def _unwritten(made: relax.TensorType | relax.TupleType):
    if isinstance(made, relax.TupleType):
        return tuple(_unwritten(field) for field in made.fields)
    array = np.empty([int(extent) for extent in made.shape], str(made.dtype))
    array.view(np.uint8).fill(UNWRITTEN)
    return array


class EmulatedModel:
    """What :func:`hawqtvm.verify.verify_model` needs of :class:`hawqtvm.runtime.Model`, of an artifact for a GPU."""

    def __init__(self, artifact: Artifact, module: tvm.IRModule):
        """``module``: the program that was compiled."""
        self.artifact, self.manifest = artifact, artifact.manifest
        self.input_shape, self.batch = artifact.input_shape, artifact.input_shape[0]
        self._program = EmulatedProgram(module, find_target(artifact.manifest["target"]["name"]))

    def trace(self, codes: np.ndarray) -> dict[str, np.ndarray]:
        """As :meth:`hawqtvm.runtime.Model.trace`, of uint8 codes.  Raises as :meth:`EmulatedProgram.main`."""
        outputs = {}

        def after(kernel: str, tensors: list[np.ndarray]) -> None:
            if kernel in self.artifact.layer_of:
                second = self.artifact.second_of.get(kernel)
                names = [self.artifact.layer_of[kernel], *([second] if second else [])]
                outputs.update(zip(names, tensors[-len(names) :], strict=True))

        self._program.main(codes, after)
        return outputs
