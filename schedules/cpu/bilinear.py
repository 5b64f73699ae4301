"""Exact fast convolution of kernel size 3 along one axis: fewer products than taps times outputs.

An algorithm computes ``2**scale_bits * y`` of a tile as sums of products of two integer combinations, one of input
samples ``d`` and one of taps ``w``; in two dimensions every row product meets every column product.

- F(2,3), Winograd: 4 products for 2 outputs.  Twice the output keeps the weight combinations whole.
- Stride 2: the even samples see ``w0, w2`` at stride 1, which F(2,2) takes in 3 products; the odd ones see ``w1``.
- One output left over: the taps themselves, those beyond the input left out.

Products that reach the same outputs with the same signs share a plane: they add up in one accumulator.  Planes follow
one another in steps, which leave an output where an accumulator simply goes on: y1 = p1 + p0, then y2 = p1 + p2.
"""

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

TAPS = 3


@dataclass(frozen=True)
class Plane:
    """``count`` products from ``product`` on meet the weight combinations from ``weight`` on.

    ``signs[a]``: how output a takes their sum, 1, -1 or 0.
    """

    product: int
    weight: int
    count: int
    signs: tuple[int, ...]


class Source(Enum):
    """Where the accumulators of a step begin; at ``START`` and ``SAVED`` a constant is added."""

    START = auto()  # zero
    KEPT = auto()  # what the step before left
    SAVED = auto()


class Sink(Enum):
    """What becomes of a step's sums; they are kept besides."""

    SAVE = auto()  # saved = sums
    DIFFERENCE = auto()  # saved = sums - 2 * saved


@dataclass(frozen=True)
class Step:
    """Adds one plane's products; ``sink``: or the number of the output that is then complete."""

    plane: int
    source: Source
    sink: Sink | int


@dataclass(frozen=True)
class Algorithm:
    """``inputs[p]``: signs of the samples of product p.  ``steps``: the planes' signs at work."""

    outputs: int
    inputs: tuple[tuple[int, ...], ...]
    planes: tuple[Plane, ...]
    steps: tuple[Step, ...]

    @property
    def samples(self) -> int:
        return len(self.inputs[0])

    @property
    def constants(self) -> int:
        """Steps that add one."""
        return sum(step.source is not Source.KEPT for step in self.steps)

    def own_plane(self, output: int) -> int:
        """The plane that reaches this output only."""
        alone = tuple(int(a == output) for a in range(self.outputs))
        return next(number for number, plane in enumerate(self.planes) if plane.signs == alone)

    def step_constants(self, wanted: np.ndarray) -> np.ndarray:
        """What steps that do not go on must add for ``wanted (outputs, ...)`` to reach the outputs."""
        constants, kept, saved = [], 0, 0
        for number, step in enumerate(self.steps):
            if step.source is not Source.KEPT:
                kept = wanted[next(s.sink for s in self.steps[number:] if isinstance(s.sink, int))]
                constants.append(kept - saved if step.source is Source.SAVED else kept)
            if step.sink is Sink.SAVE:
                saved = kept
            elif step.sink is Sink.DIFFERENCE:
                saved = kept - 2 * saved
        return np.stack(constants)


@dataclass(frozen=True)
class Segment:
    """``tiles`` tiles of an algorithm, the first one from output ``start`` on."""

    algorithm: Algorithm
    start: int
    tiles: int


@dataclass(frozen=True)
class Axis:
    """How the outputs along one axis are cut into tiles; ``weights``: the combinations of the three taps."""

    stride: int
    weights: tuple[tuple[int, int, int], ...]
    segments: tuple[Segment, ...]

    @property
    def step(self) -> int:
        """Samples between neighbouring tiles."""
        return self.segments[0].algorithm.outputs * self.stride


WINOGRAD = Algorithm(
    outputs=2,
    inputs=((0, 1, -1, 0), (0, 1, 1, 0), (0, -1, 0, 1), (1, 0, -1, 0)),
    planes=(Plane(0, 0, 1, (-1, 1)), Plane(1, 1, 1, (1, 1)), Plane(2, 2, 1, (0, 1)), Plane(3, 3, 1, (1, 0))),
    steps=(
        Step(0, Source.START, Sink.SAVE),
        Step(1, Source.KEPT, Sink.DIFFERENCE),
        Step(2, Source.KEPT, 1),
        Step(3, Source.SAVED, 0),
    ),
)
WINOGRAD_WEIGHTS = ((1, -1, 1), (1, 1, 1), (0, 0, 2), (2, 0, 0), (0, 2, 0))
LAST_OF_TWO_TAPS = Algorithm(
    outputs=1, inputs=((1, 0), (0, 1)), planes=(Plane(0, 3, 2, (1,)),), steps=(Step(0, Source.START, 0),)
)

POLYPHASE = Algorithm(
    outputs=2,
    inputs=((1, 0, -1, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 0, 0), (0, 0, 0, 1, 0), (0, 0, -1, 0, 1)),
    planes=(Plane(0, 0, 2, (1, 0)), Plane(2, 3, 1, (1, 1)), Plane(3, 1, 2, (0, 1))),
    steps=(Step(1, Source.START, Sink.SAVE), Step(0, Source.KEPT, 0), Step(2, Source.SAVED, 1)),
)
POLYPHASE_WEIGHTS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1))
LAST_OF_THREE_TAPS = Algorithm(
    outputs=1,
    inputs=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    planes=(Plane(0, 0, 3, (1,)),),
    steps=(Step(0, Source.START, 0),),
)


def scale_bits(strides: tuple[int, int]) -> int:
    """Outputs are computed times two to this: stride 1 doubles them along its axis."""
    return strides.count(1)


def axis(stride: int, outputs: int, split: bool) -> Axis:
    """Tiles of two outputs; an odd one at the end gets a tile of its own if ``split``, else half of a tile is wasted.

    With stride 1 the split leaves the last tap of the last output out: it must fall on padding of value 0.
    """
    algorithm, last = (WINOGRAD, LAST_OF_TWO_TAPS) if stride == 1 else (POLYPHASE, LAST_OF_THREE_TAPS)
    weights = WINOGRAD_WEIGHTS if stride == 1 else POLYPHASE_WEIGHTS
    whole = outputs // 2 if split else -(-outputs // 2)
    segments = [Segment(algorithm, 0, whole)] if whole else []
    if split and outputs % 2:
        segments.append(Segment(last, outputs - 1, 1))
    used = max(plane.weight + plane.count for segment in segments for plane in segment.algorithm.planes)
    return Axis(stride, weights[:used], tuple(segments))


def offset(rows: tuple[int, ...], columns: tuple[int, ...], most: int) -> int:
    """What makes a combination of samples 0..most of two dimensions nonnegative."""
    negative = sum(a * b < 0 for a in rows for b in columns)
    return negative * most


def widest(algorithm: Algorithm, most: int) -> int:
    """The greatest combination of samples 0..most in two dimensions, its offset included."""
    return max(sum(map(abs, inputs)) for inputs in algorithm.inputs) ** 2 * most


def transform_weights(rows: Axis, columns: Axis, weight: np.ndarray) -> np.ndarray:
    """``(O, C, 3, 3)`` -> ``(row combinations, column combinations, O, C)`` int64, every combination of the taps."""
    return np.einsum("ri,ocij,qj->rqoc", np.array(rows.weights), weight.astype("int64"), np.array(columns.weights))


def starts(rows: Algorithm, columns: Algorithm, sums: np.ndarray, bias: np.ndarray, most: int) -> np.ndarray:
    """Constants of the column steps of each row plane, ``(row planes, constants, O)``: the bias, less what offsets add.

    ``sums (row combinations, column combinations, O)``: the transformed weights summed over the input channels.
    ``bias`` is scaled as the outputs are.
    """
    added = np.zeros((len(rows.planes), len(columns.planes), len(bias)), "int64")
    for i, row in enumerate(rows.planes):
        for j, column in enumerate(columns.planes):
            for a in range(row.count):
                for b in range(column.count):
                    shift = offset(rows.inputs[row.product + a], columns.inputs[column.product + b], most)
                    added[i, j] += shift * sums[row.weight + a, column.weight + b]
    wanted = np.zeros((len(rows.planes), columns.outputs, len(bias)), "int64")
    for a in range(rows.outputs):
        for b in range(columns.outputs):
            signs = np.array([[row.signs[a] * column.signs[b] for column in columns.planes] for row in rows.planes])
            wanted[rows.own_plane(a), b] = bias - np.einsum("ij,ijo->o", signs, added)
    return np.stack([columns.step_constants(sums) for sums in wanted])
