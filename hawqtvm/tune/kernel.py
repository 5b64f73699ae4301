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


@dataclass
class Arguments:
    """Random values of a workload, whichever layouts a candidate wants them in: made once, shared by its candidates."""

    workload: Any
    _stored: dict = field(default_factory=dict)

    def activation(self, index: int, fmt: Format) -> tvm.runtime.Tensor:
        return self._once((index, fmt), lambda: tvm.runtime.tensor(fmt.store(self._codes[index])))

    def touch(self) -> None:
        """Reads every activation that a candidate reads."""
        for index, fmt in [key for key in self._stored if isinstance(key[1], Format)]:
            np.from_dlpack(self.activation(index, fmt)).max()

    def out(self, index: int, shape: tuple[int, ...], dtype: str) -> tvm.runtime.Tensor:
        return self._once((index, shape, dtype), lambda: tvm.runtime.tensor(np.zeros(shape, dtype)))

    @cached_property
    def parameters(self) -> list[np.ndarray]:
        """A layer's weights int8, bias and, with an epilogue, ``b`` and ``c`` int32; nothing for other operators."""
        workload, rng = self.workload, np.random.default_rng(SEED)
        if not isinstance(workload, (Conv2d, Dense)):
            return []
        channels, most = workload.out_channels, 2 ** (workload.weight_bits - 1)
        inputs, window = workload.in_channels, ()
        if isinstance(workload, Conv2d):
            inputs, window = inputs // workload.groups, workload.kernel
        weight = rng.integers(-most, most, (channels, inputs, *window), "int8")
        made = [weight, rng.integers(-MOST_BIAS, MOST_BIAS, channels, "int32")]
        if workload.epilogue:
            shift = workload.epilogue.min_shift
            made += [rng.integers(2**30, 2**31, channels, "int32"), rng.integers(shift, shift + 3, channels, "int32")]
        return made

    @cached_property
    def _codes(self) -> list[np.ndarray]:
        rng = np.random.default_rng(SEED)
        made = []
        for fmt, dims in activations(self.workload):
            least, most = (-MOST_INT32, MOST_INT32) if fmt.code == "int32" else fmt.limits
            made.append(rng.integers(least, most, dims, "int32", endpoint=True))
        return made

    def _once(self, key: tuple, make: Callable) -> tvm.runtime.Tensor:
        if key not in self._stored:
            self._stored[key] = make()
        return self._stored[key]


def compiled(candidate: Choice, target: CpuTarget, arguments: Arguments) -> Callable[[], None]:
    """The candidate's kernel on these arguments, as a function that runs it once."""
    kernel = candidate.schedule.build(candidate.config, candidate.workload, target)
    made = constants(candidate, target, arguments.parameters) if arguments.parameters else []
    x, *others = (arguments.activation(i, fmt) for i, (fmt, _) in enumerate(activations(candidate.workload)))
    inputs = [x, *made, *others]
    outputs = [arguments.out(i, *stored(out)) for i, out in enumerate(kernel.params[len(inputs) :])]
    main = lowering.compiled(kernel, target.tvm)["main"]
    return partial(main, *inputs, *outputs)


def constants(candidate: Choice, target: CpuTarget, parameters: list[np.ndarray]) -> list[tvm.runtime.Tensor]:
    """The schedule's constants as its kernel reads them, expanded as a library's loading does."""
    schedule = candidate.schedule
    arrays = schedule.constants(candidate.config, candidate.workload, *parameters)
    functions = [None] * len(arrays)
    if hasattr(schedule, "expand"):
        functions = schedule.expand(candidate.config, candidate.workload)
    made = []
    for array, function in zip(map(tvm.runtime.tensor, arrays), functions, strict=True):
        if function is None:
            made.append(array)
            continue
        made.append(tvm.runtime.empty(*stored(function.params[-1])))
        lowering.compiled(function, target.tvm)["main"](array, made[-1])
    return made


def stored(argument) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of a kernel's argument."""
    return tuple(int(extent) for extent in argument.shape), str(argument.dtype)
