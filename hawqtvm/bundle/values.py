"""A workload's inputs as :mod:`hawqtvm.runner.tensors` makes them anywhere, and its exact outputs.

Every input is noise over its whole range, also where its format leaves its content undefined; the scales of a layer are
such that outputs have many values.
"""

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np

from hawqtvm.bundle import expected
from hawqtvm.qnn.formats import Format
from hawqtvm.runner import tensors
from hawqtvm.tune.kernel import MOST_INT32, activations
from schedules.cuda import conv2d_direct, dense
from schedules.cuda.epilogue import MAX_SHIFT
from schedules.dispatch import Choice
from schedules.workload import Conv2d, Dense, MaxPool2d

WEIGHTS = "weights"  # their seed
SPREAD = 0.25  # standard deviation of a layer's outputs, of their range
SCALES = 3  # shifts of a layer's channels


class Blobs(dict):
    """Bytes by the names that descriptions give them."""

    def add(self, data: bytes) -> str:
        name = hashlib.sha256(data).hexdigest()[:16]
        self[name] = data
        return name

    def mask(self, array: np.ndarray) -> dict:
        """``{"mask": name}``, or nothing where every bit is set."""
        data = array.tobytes()
        return {} if data.count(0xFF) == len(data) else {"mask": self.add(data)}


@dataclass
class Values:
    """``inputs``: the descriptions of a kernel's activations; ``outputs`` those of what it must make of them.

    ``parameters``: a layer's weight, bias, b and c.  ``words``: a Tensor Core layer's weights in the order of
    ``weight_words``, before a config orders them, and ``described`` as they are.
    """

    blobs: Blobs
    inputs: list[dict] = field(default_factory=list)
    outputs: list[dict] = field(default_factory=list)
    parameters: list[np.ndarray] = field(default_factory=list)
    words: np.ndarray | None = None
    described: dict | None = None

    def constants(self, choice: Choice) -> list[dict]:
        """The descriptions of what the choice's kernel takes between its first activation and the others."""
        if not self.parameters:
            return []
        arrays = choice.schedule.constants(choice.config, choice.workload, *self.parameters)
        if self.words is None:
            return [self._held(array) for array in arrays]
        order = conv2d_direct.in_lane_order(choice.config, _as_conv2d(choice.workload), self.words)
        loops = [[extent, stride // order.itemsize] for extent, stride in zip(order.shape, order.strides, strict=True)]
        return [{**self.described, "order": loops}, *(self._held(array) for array in arrays[1:])]

    def _held(self, array: np.ndarray) -> dict:
        data = np.ascontiguousarray(array).tobytes()
        return {"blob": self.blobs.add(data), "bytes": len(data)}


def values(choice: Choice, blobs: Blobs) -> Values:
    """Of a choice's workload, for it and all choices of the same schedule and workload."""
    workload, made = choice.workload, Values(blobs)
    codes = []
    for index, (format, dims) in enumerate(activations(workload)):
        held, mask = np.zeros(format.shape(dims), format.dtype), {}
        if format.code == "int32":
            mask = blobs.mask(np.full_like(held, MOST_INT32 - 1))
        description = {"seed": f"x{index}", "bytes": held.nbytes, **mask}
        made.inputs.append(description)
        stored = _array(description, blobs, held.shape, format.dtype)
        codes.append(format.load(stored, dims[1], dims[0]).astype("int64"))
    if isinstance(workload, (Conv2d, Dense)):
        weight = _weight(choice, made)
        sums = expected.layer_sums(workload, codes[0], weight)
        bias, b, c = _scales(workload, sums)
        made.parameters = [weight, bias, b, c]
        shifted = sums + bias.reshape(1, -1, 1, 1)
        outputs = expected.finished(workload.epilogue, shifted, b, c, codes[1] if len(codes) > 1 else None)
        formats = workload.epilogue.outputs
    else:
        outputs = [expected.outcome(workload, codes)]
        formats = (workload.x if isinstance(workload, MaxPool2d) else workload.out,)
    made.outputs = [_output(format, codes, blobs) for format, codes in zip(formats, outputs, strict=True)]
    return made


def _weight(choice: Choice, made: Values) -> np.ndarray:
    """The weight ``(O, C/groups, [KH, KW])`` int8; for Tensor Cores the runner's noise, described in ``made``."""
    workload, most = choice.workload, 2 ** (choice.workload.weight_bits - 1)
    shape = (workload.out_channels, workload.in_channels)
    if isinstance(workload, Conv2d):
        shape = (shape[0], shape[1] // workload.groups, *workload.kernel)
    if choice.schedule not in (conv2d_direct, dense):
        return np.random.default_rng(0).integers(-most, most, shape, "int8")
    conv = _as_conv2d(workload)
    everywhere = conv2d_direct.weight_words(conv, np.full((*shape, 1, 1)[:4], -1, "int8"))
    made.described = {"seed": WEIGHTS, "bytes": everywhere.nbytes, **made.blobs.mask(everywhere)}
    made.words = _array(made.described, made.blobs, everywhere.shape, "int32")
    return np.ascontiguousarray(conv2d_direct.weight_codes(conv, made.words)).reshape(shape)


def _scales(workload: Conv2d | Dense, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bias, ``b`` and ``c`` of each channel."""
    rng, channels, epilogue = np.random.default_rng(0), workload.out_channels, workload.epilogue
    deviation = max(float(sums.std()), 1.0)
    bias = rng.integers(-round(deviation), round(deviation), channels, "int32", endpoint=True)
    wanted = math.log2(1.5 * 2**30 * deviation / (SPREAD * (epilogue.hi - epilogue.lo)))
    least = min(max(epilogue.min_shift, round(wanted)), MAX_SHIFT - SCALES)
    return bias, rng.integers(2**30, 2**31, channels, "int32"), rng.integers(least, least + SCALES, channels, "int32")


def _output(format: Format, codes: np.ndarray, blobs: Blobs) -> dict:
    ones = format.limits[1] if format.limits[0] == 0 else -1  # every bit of a code
    mask = format.store(np.full(codes.shape, ones))
    stored = format.store(codes)
    return {"bytes": stored.nbytes, "sha256": hashlib.sha256(stored.tobytes()).hexdigest(), **blobs.mask(mask)}


def _array(description: dict, blobs: Blobs, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.frombuffer(tensors.made(description, blobs.__getitem__), dtype).reshape(shape)


def _as_conv2d(workload: Conv2d | Dense) -> Conv2d:
    return dense.as_conv2d(workload) if isinstance(workload, Dense) else workload
