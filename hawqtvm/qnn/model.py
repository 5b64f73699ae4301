"""The quantized model: the graph, its weights at 4 and 8 bits, its tensors' scales; and what a plan makes of them."""

from dataclasses import dataclass, field

import numpy as np

from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.qnn.dyadic import dyadic, shortened
from hawqtvm.qnn.formats import LIMITS, STORAGE
from hawqtvm.qnn.graph import LAYERS, Graph, Step
from hawqtvm.qnn.quantizers import WIDE_LIMITS

RESIDUALS = ("int16", "int32", "uint8")
# a factor below this rescales every int32 to 0, and so does this one: what is dead needs no error
LEAST_FACTOR = 2.0**-32


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (code - zero_point)``; ``code`` names the integer range (formats.LIMITS)."""

    code: str
    scale: float
    zero_point: int

    @property
    def limits(self) -> tuple[int, int]:
        if self.code == "int32":
            return -WIDE_LIMITS["int32"], WIDE_LIMITS["int32"]
        return LIMITS[self.code]


@dataclass
class LayerWeights:
    """A layer's float32 weight ``(O, ...)`` and bias ``(O,)``; int8 codes and float64 scales ``(O,)`` by bits."""

    weight: np.ndarray
    bias: np.ndarray
    codes: dict[int, np.ndarray]
    scales: dict[int, np.ndarray]

    def dequantized(self, bits: int) -> np.ndarray:
        """The real values of the codes, float32 ``(O, ...)``."""
        scales = self.scales[bits].astype("float32").reshape(-1, *[1] * (self.weight.ndim - 1))
        return self.codes[bits].astype("float32") * scales


@dataclass
class QuantizedModel:
    """``ranges``: {tensor: {code: (scale, zero point)}}; ``samples``: uint8 input codes ``(N, C, H, W)``."""

    name: str
    graph: Graph
    layers: dict[str, LayerWeights]
    ranges: dict[str, dict[str, tuple[float, int]]]
    samples: np.ndarray
    provenance: dict = field(default_factory=dict)

    def bits(self, bits: "dict[str, int] | int") -> dict[str, int]:
        """Every layer's bits from a plan's {layer: 4 or 8} (layers not named take 8) or one number for all.

        The uniform 4 leaves the fixed layers at 8.  Raises BadInput for unknown layers, bits that are neither 4 nor
        8, a fixed layer at 4, and tied layers that differ.
        """
        names = [s.name for s in self.graph.layers]
        fixed = self.graph.fixed()
        if not isinstance(bits, dict):
            if isinstance(bits, bool) or bits not in (4, 8):
                raise BadInput(f"bits must be 4 or 8, or {{layer: 4 or 8}}, not {bits!r}")
            bits = {n: 8 if n in fixed else bits for n in names}
        unknown = [n for n in bits if n not in names]
        if unknown:
            raise BadInput(
                f"the plan names layer {unknown[0]!r}, which {self.name} does not have; its layers: {', '.join(names)}"
            )
        for name, value in bits.items():
            if isinstance(value, bool) or value not in (4, 8):
                raise BadInput(f"layer {name}: bits must be 4 or 8, not {value!r}")
            if name in fixed and value == 4:
                raise BadInput(
                    f"layer {name} reads the input or makes the logits (or shares one's input): it stays at 8 bits"
                )
        full = {n: int(bits.get(n, 8)) for n in names}
        for group in self.graph.tied():
            if len({full[n] for n in group}) > 1:
                given = ", ".join(f"{n}={full[n]}" for n in group)
                raise BadInput(f"layers {given} read the same tensor, which is quantized once: give them the same bits")
        return full


@dataclass(frozen=True)
class StepParameters:
    """A step's integers under a plan.  ``ratios``: float64 rescaling factors, one for each rescaled input; of 15
    significant bits where codes of at most 8 bits are made.

    ``weight``, ``bias``: int8 and int32, the zero point's share folded in.  ``in_zero_points``: one an input.
    Output codes are clipped to ``[lo, hi]``.  Max pools, concats and accumulators rescale nothing.
    """

    in_zero_points: tuple[int, ...]
    out: Quantization | None
    lo: int = 0
    hi: int = 0
    ratios: tuple[np.ndarray, ...] = ()
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    bits: int | None = None

    def dyadic(self, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """``(b, c)`` int64 arrays, one pair for each ratio."""
        return [dyadic(r, name) for r in self.ratios]


class Arithmetic:
    """A quantized model under one plan and one residual stream: every tensor's quantization, every step's integers."""

    def __init__(self, model: QuantizedModel, bits: dict[str, int], residual: str = "int16"):
        if residual not in RESIDUALS:
            raise BadInput(f"residual stream {residual!r}; choose {', '.join(RESIDUALS)}")
        self.model, self.graph, self.layer_bits, self.residual = model, model.graph, bits, residual
        self.tensors = {name: self.quantization(name) for name in self.graph.tensors}

    def quantization(self, name: str) -> Quantization | None:
        """None for an accumulator, whose scale is its layer's weights' times its input's."""
        tensor = self.graph.tensors[name]
        if tensor.kind == "accumulator":
            return None
        if tensor.kind == "logits":
            return self.logits(name)
        if tensor.kind == "wide":
            code = self.residual
        elif tensor.kind == "input":
            code = "uint8"
        else:
            readers = self.graph.readers(tensor.group)
            code = f"uint{self.layer_bits[readers[0]] if readers else 8}"
        return Quantization(code, *self.model.ranges[tensor.ranges][code])

    def logits(self, name: str) -> Quantization:
        """One scale for all logits: a layer's coarsest accumulator scale, else the calibrated int32 range."""
        step = self.graph.step(name)
        if self.ends_in_sums(step):
            return Quantization("int32", float(self.accumulator_scale(step).max()), 0)
        return Quantization("int32", *self.model.ranges[self.graph.tensors[name].ranges]["int32"])

    def ends_in_sums(self, step: Step) -> bool:
        """Whether the logits are this layer's sums, and not what a pool or a concat makes of its codes."""
        return step.op in LAYERS and step == self.graph.output

    def accumulator_scale(self, step: Step) -> np.ndarray:
        """Float64 ``(O,)``: the real value of one unit of a layer's int32 sum."""
        return self.model.layers[step.name].scales[self.layer_bits[step.name]] * self.quantization(step.inputs[0]).scale

    def source_scale(self, name: str) -> np.ndarray:
        if self.tensors[name] is None:
            return self.accumulator_scale(self.graph.step(name))
        return np.float64(self.tensors[name].scale)

    def clip(self, step: Step, out: Quantization) -> tuple[int, int]:
        if self.ends_in_sums(step):
            low, high = LIMITS["int32"]
        else:
            low, high = out.limits
        if step.relu:
            low = max(low, out.zero_point)
        if step.ceiling is not None:
            high = min(high, round(step.ceiling / out.scale) + out.zero_point)
        return low, high

    def parameters(self, step: Step) -> StepParameters:
        """The integers of one step.  Raises CheckFailed where a bias does not fit an int32."""
        out = self.tensors[step.name]
        zero_points = tuple(0 if self.tensors[i] is None else self.tensors[i].zero_point for i in step.inputs)
        weight = bias = bits = None
        if step.op in LAYERS:
            bits, stored = self.layer_bits[step.name], self.model.layers[step.name]
            weight = stored.codes[bits]
            taps = weight.reshape(weight.shape[0], -1).sum(1, dtype="int64")
            exact = np.rint(stored.bias / self.accumulator_scale(step)) - float(zero_points[0]) * taps
            fits = np.abs(exact) < 2**31
            if not fits.all():
                raise CheckFailed(f"layer {step.name}: the bias of channel {int(fits.argmin())} overflows int32")
            bias = exact.astype("int32")
            ratios = () if out is None else (self.accumulator_scale(step) / out.scale,)
        elif step.op in ("max_pool2d", "concat"):
            return StepParameters(zero_points, out, *out.limits)
        else:
            count = step.kernel[0] * step.kernel[1] if step.op == "avg_pool2d" else 1
            ratios = tuple(self.source_scale(i) / (out.scale * count) for i in step.inputs)
        ratios = tuple(np.where((r > 0) & (r < LEAST_FACTOR), LEAST_FACTOR, r) for r in ratios)
        if out is not None and STORAGE[out.code] == "uint8":
            ratios = tuple(shortened(r) for r in ratios)
        low, high = (0, 0) if out is None else self.clip(step, out)
        return StepParameters(zero_points, out, low, high, ratios, weight, bias, bits)
