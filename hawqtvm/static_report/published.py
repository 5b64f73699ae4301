"""Kernel times of convolutions that HAWQ's authors published, on an NVIDIA T4 at batch 8."""

import functools
import json
from pathlib import Path

from schedules.target import CudaTarget
from schedules.workload import Conv2d

FILE = Path(__file__).with_name("hawq_t4.json")


@functools.cache
def published() -> dict:
    """``source``, ``target``, ``batch``, and ``times``: {(model, bits, size, channels, ...): microseconds}."""
    found = json.loads(FILE.read_text())
    return {**found, "times": {tuple(key): us for *key, us in found["kernels"]}}


def published_us(model: str, workload, target: CudaTarget) -> float | None:
    """Of the same convolution in the same network; None where they have none."""
    known = published()
    if not isinstance(workload, Conv2d) or (workload.batch, target.name) != (known["batch"], known["target"]):
        return None
    kernel, stride = workload.kernel[0], workload.strides[0]
    shape = workload.height, workload.in_channels, workload.out_channels, kernel, stride
    return known["times"].get((model, workload.weight_bits, *shape))
