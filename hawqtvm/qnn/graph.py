"""The quantized graph: named steps over named tensors, and which quantization each tensor has.

The checkpoint stores these steps, the integer reference runs them, the Relax emission walks them.
"""

from dataclasses import asdict, dataclass, field

from hawqtvm.errors import BadInput

LAYERS = ("conv2d", "dense")
OPS = (*LAYERS, "add", "concat", "max_pool2d", "avg_pool2d", "requantize")
KINDS = ("input", "codes", "wide", "accumulator", "logits")


@dataclass(frozen=True)
class Step:
    """One operator; its output tensor carries its name.  Geometry as in torch; padding is top, left, bottom, right.

    ``op``: one of ``OPS``.  ``dims``: logical output shape without
    the batch, (C, H, W).  ``relu`` clips below zero, ``ceiling`` (ReLU6) above, both on the real value.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    dims: tuple[int, int, int]
    relu: bool = False
    ceiling: float | None = None
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class Tensor:
    """How a tensor is quantized.

    ``kind``: "input" (uint8 codes), "codes" (uint4 or uint8, as its reading layers' bits say), "wide" (residual
    stream), "accumulator" (a convolution's int32 sum on its way into a residual add) or "logits" (int32).
    ``ranges``: the tensor whose calibrated range gives scale and zero point.  ``group``: tensors that must have one
    format (both sides of a max pool, the branches of a concat) name the same group.
    """

    kind: str
    ranges: str
    group: str


@dataclass(frozen=True)
class Graph:
    """``input_dims`` is (C, H, W); ``steps`` are in execution order; the last one makes the output."""

    input_dims: tuple[int, int, int]
    steps: tuple[Step, ...]
    tensors: dict[str, Tensor] = field(hash=False)

    @property
    def layers(self) -> list[Step]:
        """The steps with weights: those a plan gives bits to."""
        return [s for s in self.steps if s.op in LAYERS]

    @property
    def output(self) -> Step:
        return self.steps[-1]

    def step(self, name: str) -> Step:
        return next(s for s in self.steps if s.name == name)

    def dims(self, tensor: str) -> tuple[int, int, int]:
        return self.input_dims if tensor == "input" else self.step(tensor).dims

    def readers(self, group: str) -> list[str]:
        """Layers that read a tensor of the group: they quantize it once, so they share their bits."""
        return [s.name for s in self.layers if self.tensors[s.inputs[0]].group == group]

    def tied(self) -> list[list[str]]:
        """Groups of two or more layers that must have the same bits."""
        groups = dict.fromkeys(self.tensors[s.inputs[0]].group for s in self.layers)
        return [readers for g in groups if len(readers := self.readers(g)) > 1]

    def fixed(self) -> list[str]:
        """Layers that stay at 8 bits: those that read the input and the last before the output (with their ties)."""
        fixed = {s.name for s in self.layers if self.tensors[s.inputs[0]].kind == "input"}
        behind = [self.output]
        while behind:
            step = behind.pop()
            if step.op in LAYERS:
                fixed.add(step.name)
            else:
                behind += [self.step(name) for name in step.inputs if name != "input"]
        fixed.update(name for group in self.tied() if fixed & set(group) for name in group)
        return [s.name for s in self.layers if s.name in fixed]

    def check(self) -> None:
        """ValueError that names the step or tensor which makes this no graph."""
        if not self.steps or len(self.input_dims) != 3:
            raise ValueError("no steps or no input")
        known = {"input"}
        for step in self.steps:
            operands = {"add": 2, "concat": max(1, len(step.inputs))}.get(step.op, 1)
            if step.op not in OPS or step.name in known or len(step.inputs) != operands or set(step.inputs) - known:
                raise ValueError(f"step {step.name}")
            known.add(step.name)
        for name in known | set(self.tensors):
            tensor = self.tensors.get(name)
            if name not in known or tensor is None or tensor.kind not in KINDS or {tensor.ranges, tensor.group} - known:
                raise ValueError(f"tensor {name}")

    def to_json(self) -> dict:
        return {
            "input_dims": self.input_dims,
            "steps": [asdict(s) for s in self.steps],
            "tensors": {name: asdict(t) for name, t in self.tensors.items()},
        }

    @staticmethod
    def from_json(data: dict) -> "Graph":
        """The inverse of :meth:`to_json`; raises BadInput when a part is missing or unknown."""
        try:
            steps = [
                Step(**{k: tuple(v) if isinstance(v, list) else v for k, v in step.items()}) for step in data["steps"]
            ]
            tensors = {name: Tensor(**t) for name, t in data["tensors"].items()}
            graph = Graph(tuple(data["input_dims"]), tuple(steps), tensors)
            graph.check()
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise BadInput(f"the checkpoint's graph is damaged ({error}); quantize the model again") from None
        return graph
