"""A lowered network for a GPU, kernel by kernel in the emulator: its logits and every layer's output."""

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import ir, relax

from hawqtvm.compile import LAYER_OPS
from hawqtvm.emulator.lowered import Lowered, lower, unwritten
from hawqtvm.errors import BadInput
from relay_passes.attributes import constant, is_constant
from relay_passes.lift import EXPAND
from relay_passes.rewrite import bindings
from relay_passes.schedule import Kernel
from schedules.target import CudaTarget

After = Callable[[str, list[np.ndarray]], None]  # a kernel's name and the outputs it has written


class EmulatedProgram:
    """What :func:`relay_passes.pipeline.lower` returns for a ``CudaTarget``, ready to run.

    ``checked``: as in :class:`~hawqtvm.emulator.Emulated`.
    """

    def __init__(self, mod: tvm.IRModule, kernels: Sequence[Kernel], target: CudaTarget, checked: bool = True):
        self._mod, self._target, self._checked = mod, target.tvm, checked
        self._lowered: dict[ir.GlobalVar, Lowered] = {}
        # of what each kernel stores; without a second output the zip of names and outputs ends before the second
        self._names = {k.name: (k.layer if k.op in LAYER_OPS else k.tensor, k.codes) for k in kernels}

    def run(self, codes: np.ndarray) -> np.ndarray:
        """Logits of uint8 input codes ``(N, C, H, W)``.

        CheckFailed where a kernel does what it must not, BadInput for codes of another shape or dtype.
        """
        return self._logits(codes, lambda kernel, outputs: None)

    def trace(self, codes: np.ndarray) -> dict[str, np.ndarray]:
        """Each layer's output as its kernel stored it, in the order they ran, as ``hawqtvm.runtime.Model.trace``."""
        stored: dict[str, np.ndarray] = {}

        def after(kernel: str, outputs: list[np.ndarray]) -> None:
            stored.update(zip(self._names.get(kernel, ()), outputs, strict=False))

        self._logits(codes, after)
        return stored

    def _logits(self, codes: np.ndarray, after: After) -> np.ndarray:
        wanted = self._mod["main"].params[0].ty
        shape = tuple(int(extent) for extent in wanted.shape)
        if codes.shape != shape or str(codes.dtype) != str(wanted.dtype):
            raise BadInput(f"the program takes {wanted.dtype} codes {shape}, not {codes.dtype} {codes.shape}")
        weights = self._call(EXPAND, [], after)
        return self._call("main", [codes, weights], after)

    def _call(self, name: str, arguments: list, after: After):
        function = self._mod[name]
        held = dict(zip(function.params, arguments, strict=True))

        def value(expr):
            if isinstance(expr, relax.Tuple):
                return tuple(value(field) for field in expr.fields)
            if isinstance(expr, relax.TupleGetItem):
                return value(expr.tuple_value)[expr.index]
            return constant(expr) if is_constant(expr) else held[expr]

        for binding in bindings(self._mod, name):
            if isinstance(binding.value, ir.Call):
                kernel, given = binding.value.args[:2]
                types = binding.var.ty.fields if isinstance(binding.var.ty, relax.TupleType) else [binding.var.ty]
                outputs = [unwritten(of.shape, of.dtype) for of in types]
                self._kernel(kernel).run(*value(given), *outputs, checked=self._checked)
                after(kernel.name_hint, outputs)
                held[binding.var] = tuple(outputs) if isinstance(binding.var.ty, relax.TupleType) else outputs[0]
            else:
                held[binding.var] = value(binding.value)
        return value(function.body.body)

    def _kernel(self, var: ir.GlobalVar) -> Lowered:
        if var not in self._lowered:
            self._lowered[var] = lower(self._mod[var], self._target)
        return self._lowered[var]
