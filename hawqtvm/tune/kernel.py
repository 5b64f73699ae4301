"""A candidate compiled, with arguments to run it on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import tvm

from hawqtvm.qnn.formats import Format
from schedules import lowering
from schedules.dispatch import Choice
from schedules.target import CpuTarget
from schedules.workload import Concat, Conv2d, Dense, Elementwise

SEED = 0
MOST_INT32 = 2**20  # codes of int32 activations
MOST_BIAS = 2**16

Stored = tuple[tuple[int, ...], str]


def activations(workload) -> list[tuple[Format, tuple[int, int, int, int]]]:
    """Format and dims of each activation that a kernel of the workload reads, in the order of its arguments."""
    if isinstance(workload, Elementwise):
        return [(operand.format, workload.dims) for operand in workload.operands]
    if isinstance(workload, Concat):
        return [(workload.x, dims) for dims in workload.operands]
    if isinstance(workload, (Conv2d, Dense)):
        residual = workload.epilogue and workload.epilogue.residual
        read = [(workload.x, workload.x_dims)]
        return [*read, (residual.format, workload.out_dims)] if residual else read
    return [(workload.x, workload.dims)]


def parameters(workload) -> list[np.ndarray]:
    """A layer's random weights int8, bias and, with an epilogue, ``b`` and ``c`` int32; nothing for other operators."""
    if not isinstance(workload, (Conv2d, Dense)):
        return []
    rng = np.random.default_rng(SEED)
    channels, most = workload.out_channels, 2 ** (workload.weight_bits - 1)
    inputs, window = workload.in_channels, ()
    if isinstance(workload, Conv2d):
        inputs, window = inputs // workload.groups, workload.kernel
    weight = rng.integers(-most, most, (channels, inputs, *window), "int8")
    made = [weight, rng.integers(-MOST_BIAS, MOST_BIAS, channels, "int32")]
    if workload.epilogue:
        shift = workload.epilogue.min_shift
        made += [rng.integers(2**14, 2**15, channels, "int32") << 16, rng.integers(shift, shift + 3, channels, "int32")]
    return made


@dataclass
class Arguments:
    """Random activations of a workload on a device, made once for each layout that its candidates want."""

    workload: Any
    device: tvm.runtime.Device = field(default_factory=tvm.cpu)
    _made: dict = field(default_factory=dict)

    def activation(self, index: int, fmt: Format) -> tvm.runtime.Tensor:
        return self._once((index, fmt), lambda: tvm.runtime.tensor(fmt.store(self._codes[index]), self.device))

    def out(self, index: int, shape: tuple[int, ...], dtype: str) -> tvm.runtime.Tensor:
        return self._once((index, shape, dtype), lambda: tvm.runtime.tensor(np.zeros(shape, dtype), self.device))

    @cached_property
    def _codes(self) -> list[np.ndarray]:
        rng = np.random.default_rng(SEED)
        made = []
        for fmt, dims in activations(self.workload):
            least, most = (-MOST_INT32, MOST_INT32) if fmt.code == "int32" else fmt.limits
            made.append(rng.integers(least, most, dims, "int32", endpoint=True))
        return made

    def _once(self, key: tuple, make: Callable) -> tvm.runtime.Tensor:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


@dataclass(frozen=True)
class Built:
    """A candidate compiled: ``module`` has its kernel as "main", and as "expand<i>" what makes constant ``i`` for it.

    ``constants``: each as it is stored, and the shape and dtype in which the kernel reads it, None for unchanged.
    ``outputs``: shape and dtype of each.
    """

    candidate: Choice
    module: Any
    constants: list[tuple[np.ndarray, Stored | None]]
    outputs: list[Stored]

    def arguments(self, module, values: Arguments) -> list[tvm.runtime.Tensor]:
        """The kernel's arguments on the values' device, where ``module`` is loaded; constants expanded as at load."""
        x, *others = (values.activation(i, fmt) for i, (fmt, _) in enumerate(activations(self.candidate.workload)))
        outputs = [values.out(i, *out) for i, out in enumerate(self.outputs)]
        constants = []
        for index, (array, read) in enumerate(self.constants):
            constants.append(tvm.runtime.tensor(array, values.device))
            if read is not None:
                stored, constants[-1] = constants[-1], tvm.runtime.empty(*read, values.device)
                module[f"expand{index}"](stored, constants[-1])
        return [x, *constants, *others, *outputs]


def build(candidate: Choice, target: CpuTarget, parameters: list[np.ndarray]) -> Built:
    """Compiles a candidate for a layer's parameters; raises whatever a schedule or the compiler may."""
    schedule, config, workload = candidate.schedule, candidate.config, candidate.workload
    kernel = schedule.build(config, workload, target)
    arrays = schedule.constants(config, workload, *parameters) if parameters else []
    expand = schedule.expand(config, workload) if hasattr(schedule, "expand") else [None] * len(arrays)
    functions = {"main": kernel} | {f"expand{i}": f for i, f in enumerate(expand) if f is not None}
    module = tvm.IRModule({name: function.with_attr("global_symbol", name) for name, function in functions.items()})
    reads = [function and _stored(function.params[-1]) for function in expand]
    outputs = kernel.params[len(activations(workload)) + len(arrays) :]
    return Built(
        candidate,
        lowering.compiled(module, target.tvm),
        list(zip(arrays, reads, strict=True)),
        [_stored(out) for out in outputs],
    )


def compiled(candidate: Choice, target: CpuTarget) -> Callable[[], None]:
    """The candidate's kernel on random values, as a function that runs it once in this process."""
    built = build(candidate, target, parameters(candidate.workload))
    return partial(built.module["main"], *built.arguments(built.module, Arguments(candidate.workload)))


def _stored(argument) -> Stored:
    """Shape and dtype of a kernel's argument."""
    return tuple(int(extent) for extent in argument.shape), str(argument.dtype)
