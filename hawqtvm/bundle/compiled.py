"""A candidate as a bundle has it: its cubin, and how that is launched on which buffers."""

import math

import numpy as np

from hawqtvm.bundle.values import Blobs, Values
from hawqtvm.emulator.lowered import Launch, lower
from schedules.cuda import nvcc
from schedules.dispatch import Choice
from schedules.plain_json import to_json
from schedules.target import CudaTarget


def compiled(choice: Choice, values: Values, target: CudaTarget, blobs: Blobs) -> dict:
    """The candidate's entry in the bundle; raises whatever its schedule may, and BadInput as :func:`nvcc.cubin`.

    ``arguments``: the PrimFunc's, each a tensor of :mod:`hawqtvm.runner.tensors` or ``{"output": number}``, with its
    ``bytes``.  ``launches``: in order; their ``buffers`` are numbers of arguments, and past those of ``workspaces``,
    buffers of so many bytes.
    """
    lowered = lower(choice.schedule.build(choice.config, choice.workload, target), target.tvm)
    x, *others = values.inputs
    outputs = [{"output": number, "bytes": made["bytes"]} for number, made in enumerate(values.outputs)]
    return {
        "schedule": choice.name,
        "config": to_json(choice.config),
        "cubin": blobs.add(nvcc.cubin(lowered.source, target.arch)),
        "launches": [_launch(launch) for launch in lowered.launches],
        "arguments": [x, *values.constants(choice), *others, *outputs],
        "workspaces": [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in lowered.workspaces],
    }


def _launch(launch: Launch) -> dict:
    return {
        "kernel": launch.kernel,
        "grid": launch.grid,
        "block": launch.block,
        "shared": launch.shared,
        "buffers": launch.buffers,
    }
