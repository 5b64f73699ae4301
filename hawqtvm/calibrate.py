"""Runs the float model over calibration batches and turns what each tensor held into scales and zero points."""

from collections.abc import Iterable

import numpy as np

from hawqtvm.console import Progress
from hawqtvm.errors import BadInput
from hawqtvm.qnn.graph import Graph
from hawqtvm.qnn.quantizers import WIDE_LIMITS, activation_range, affine, wide
from hawqtvm.qnn.reference import run_float

SAMPLES_A_BATCH = 2**15


def checked_batch(batch, input_dims: tuple[int, int, int] | None) -> np.ndarray:
    """A float32 ``(N, C, H, W)`` array of the model's input shape without NaN; BadInput otherwise."""
    try:
        images = np.asarray(batch, "float32")
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"a calibration batch is no array of images ({error}); give images (N, C, H, W) only") from None
    if images.ndim != 4 or (input_dims and images.shape[1:] != tuple(input_dims)):
        wanted = f"(N, {', '.join(map(str, input_dims))})" if input_dims else "(N, C, H, W)"
        raise BadInput(f"a calibration batch has shape {images.shape}; the model takes {wanted}")
    if not len(images):
        raise BadInput("a calibration batch is empty; give at least one image")
    if not np.isfinite(images).all():
        raise BadInput("the calibration data hold NaN or infinity; clean the images")
    return images


class Observer:
    """Exact extremes and an even sample of the values a tensor held."""

    def __init__(self):
        self.low, self.high, self.parts = np.inf, -np.inf, []

    def see(self, values: np.ndarray) -> None:
        flat = values.ravel()
        # numpy's extremes keep a NaN that Python's would drop
        self.low, self.high = float(np.minimum(self.low, flat.min())), float(np.maximum(self.high, flat.max()))
        # an odd step, so that it does not always meet the same image column
        self.parts.append(flat[:: max(1, flat.size // SAMPLES_A_BATCH) | 1].copy())

    def values(self) -> np.ndarray:
        return np.concatenate([*self.parts, np.float32([self.low, self.high])])


def calibrate(
    graph: Graph, weights: dict[str, tuple], batches: Iterable[np.ndarray], method: str
) -> tuple[dict[str, dict[str, tuple[float, int]]], list[str]]:
    """{tensor: {code: (scale, zero point)}} for every code a plan may ask of it, and the tensors that held only 0.

    Raises BadInput for an empty set, NaN, a wrong shape, or an activation that is not finite.
    """
    # in the steps' order, so that every run writes the same and the first tensor that overflows is named
    seen = {t.ranges: Observer() for t in graph.tensors.values() if t.kind != "accumulator"}
    count = 0
    with Progress("calibration batches") as progress:
        for batch in batches:
            for name, values in run_float(graph, weights, checked_batch(batch, graph.input_dims)):
                if name in seen:
                    seen[name].see(values)
            count += 1
            progress()
    if not count:
        raise BadInput("the calibration set is empty; give at least one image")
    broken = [name for name, observer in seen.items() if not np.isfinite(observer.high - observer.low)]
    if broken:
        raise BadInput(f"the activation {broken[0]} overflows float32 on the calibration data; check the weights")
    if seen["input"].low == seen["input"].high == 0:
        raise BadInput("every calibration image is zero: there is no range to quantize; give real images")
    ranges, constant = {}, [name for name, o in seen.items() if o.low == o.high == 0]
    with Progress("ranges", len(seen)) as progress:
        for name, observer in seen.items():
            values = observer.values()
            codes = {f"uint{bits}": affine(*activation_range(values, method, bits), bits) for bits in (4, 8)}
            codes |= {code: wide(observer.low, observer.high, code) for code in WIDE_LIMITS}
            ranges[name] = codes
            progress(name)
    return ranges, constant
