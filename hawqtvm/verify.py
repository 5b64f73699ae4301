"""Stage 6: every quantized tensor of the running library against the PyTorch integer model, code by code."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hawqtvm.console import Parser, Progress, command, note, print_json, table
from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.qnn.formats import Format
from hawqtvm.runtime.artifact import MANIFEST

if TYPE_CHECKING:
    from hawqtvm.emulation import EmulatedModel
    from hawqtvm.qnn.model import Arithmetic
    from hawqtvm.runtime import Model

EXTREMES = 5  # at least so many images: one of each kind
REFERENCE = "reference"  # the artifact's copy of its checkpoint


@dataclass(frozen=True)
class Row:
    """A tensor of the table.  ``drift``: normalized L2 of the fake-quantized model from the integer one, figure G.1."""

    layer: str
    tensor: str
    code: str
    shape: tuple[int, ...]
    codes: int
    wrong: int
    first: str
    drift: float


def inputs(samples: np.ndarray, shape: tuple[int, int, int, int]) -> Iterator[np.ndarray]:
    """Batches of uint8 codes: calibration images, uniform noise, and the extremes (all 0, all 255, a checkerboard)."""
    batch, *dims = shape
    noise = np.random.default_rng(0).integers(0, 256, (1, *dims), "uint8")
    checker = (np.indices(dims).sum(0) % 2 * 255).astype("uint8")[None]
    flat = [np.full((1, *dims), value, "uint8") for value in (0, 255)]
    pool = np.concatenate([samples[:1], noise, checker, *flat, samples[1:]])
    count = -(-min(len(pool), max(batch, EXTREMES)) // batch) * batch
    pool = np.concatenate([pool] * -(-count // len(pool)))[:count]
    yield from pool.reshape(-1, *shape)


def first_difference(got: np.ndarray, expected: np.ndarray) -> str:
    image, channel, y, x = (int(i) for i in np.argwhere(got != expected)[0])
    return (
        f"image {image}, channel {channel}, at ({y}, {x}): the library has {int(got[image, channel, y, x])}, "
        f"PyTorch has {int(expected[image, channel, y, x])}"
    )


class Stored(NamedTuple):
    """A tensor that a kernel makes: its name in a trace, its own name, and how it is stored."""

    name: str
    tensor: str
    format: Format


def made_by(kernel: dict) -> list[Stored]:
    """What the kernel of a manifest's row makes."""
    second = kernel.get("second_output")
    made = [(kernel["name"], kernel["tensor"], kernel["output"])]
    made += [(second["tensor"], second["tensor"], second)] if second else []
    return [Stored(name, tensor, Format(out["code"], out["layout"], out["packed"])) for name, tensor, out in made]


def absorbed(arithmetic: "Arithmetic", tensor: str, made: dict[str, Stored]) -> bool:
    """Whether no kernel stores it: a requantization that changes nothing, or what a pool in its own kernel reads."""
    graph = arithmetic.graph
    step, readers = graph.step(tensor), [reader for reader in graph.steps if tensor in reader.inputs]
    if step.op == "requantize" and arithmetic.tensors[tensor] == arithmetic.tensors[step.inputs[0]]:
        return True
    pools = [reader.name for reader in readers if reader.op == "max_pool2d"]
    return len(readers) == 1 and any(name in made and made[name].name == step.name for name in pools)


def compare(model: "Model | EmulatedModel", arithmetic: "Arithmetic", codes: np.ndarray) -> list[Row]:
    """One batch through the library and through PyTorch's integer and fake-quantized models, in execution order."""
    from hawqtvm.qnn.reference import run_fake, run_integer

    outputs = model.trace(codes)
    made = {stored.tensor: stored for kernel in model.manifest["layers"] for stored in made_by(kernel)}
    rows = []

    def add(stored: Stored, tensor: str, expected: np.ndarray, fake: np.ndarray) -> None:
        q, held, fmt = arithmetic.tensors[tensor], outputs[stored.name], stored.format
        if (held.dtype, held.shape, fmt.code) != (fmt.dtype, fmt.shape(expected.shape), q.code):
            raise CheckFailed(
                f"layer {stored.name} stores {held.dtype} {held.shape} as {fmt.code}, which is not "
                f"{q.code} {expected.shape} as it should be; deploy again"
            )
        got = fmt.load(held, expected.shape[1], len(expected)).astype("int64")
        wrong = int((got != expected).sum())
        real = (expected - q.zero_point) * q.scale
        norm = float(np.linalg.norm(real))
        drift = float(np.linalg.norm(fake.astype("float64") - real)) / norm if norm else 0.0
        first = first_difference(got, expected) if wrong else ""
        rows.append(Row(stored.name, stored.tensor, q.code, got.shape, expected.size, wrong, first, drift))

    runs = zip(run_integer(arithmetic, codes), run_fake(arithmetic, codes), strict=True)
    for (tensor, expected), (_, fake) in runs:
        stored = made.get(tensor)
        if arithmetic.tensors[tensor] is None or stored is None and absorbed(arithmetic, tensor, made):
            continue
        if stored is None:
            raise CheckFailed(f"the library has no kernel for the tensor {tensor}; deploy again")
        add(stored, tensor, expected, fake)
    (last, *_) = made_by(model.manifest["layers"][-1])
    if last.tensor != tensor:  # the conversion into the logits' own layout
        add(last, tensor, expected, fake)
    return rows


def merged(tables: list[list[Row]]) -> list[Row]:
    """One table from one a batch: codes and mismatches added up, the first difference, the largest drift."""
    result = []
    for rows in zip(*tables, strict=True):
        first = next((r.first for r in rows if r.first), "")
        result.append(
            Row(
                rows[0].layer,
                rows[0].tensor,
                rows[0].code,
                rows[0].shape,
                sum(r.codes for r in rows),
                sum(r.wrong for r in rows),
                first,
                max(r.drift for r in rows),
            )
        )
    return result


def reference(model: "Model | EmulatedModel") -> "Arithmetic":
    """The integer model that an artifact was built from; BadInput when its manifest or its reference says otherwise."""
    from hawqtvm.checkpoint import load_checkpoint
    from hawqtvm.qnn.model import Arithmetic

    manifest, path = model.manifest, model.artifact.path
    try:
        bits, residual = manifest["plan"]["bits"], manifest["residual"]
        built_from = manifest["provenance"]["checkpoint_sha256"]
        kernel_bits = {k["name"]: k["bits"] for k in manifest["layers"] if k["bits"] is not None}
        for kernel in manifest["layers"]:
            made_by(kernel)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path / MANIFEST} is damaged ({type(error).__name__}: {error}): deploy again") from None
    if not (path / REFERENCE).is_dir():
        raise BadInput(f"{path} lacks {REFERENCE}/, the checkpoint to compare with: copy all of it, or deploy again")
    quantized, identity = load_checkpoint(path / REFERENCE)
    if identity.sha256 != built_from:
        raise BadInput(
            f"{path / REFERENCE} is not the checkpoint that the library was built from (its sha256 is "
            f"{identity.sha256[:12]}..., not {str(built_from)[:12]}...): copy the right one there, or deploy again"
        )
    bits = quantized.bits(bits)
    for name, value in bits.items():
        if kernel_bits.get(name) != value:
            raise BadInput(
                f"{path / MANIFEST} was changed: its plan gives layer {name} {value} bits, its kernel has "
                f"{kernel_bits.get(name)}; deploy again"
            )
    return Arithmetic(quantized, bits, residual)


def checked_codes(model: "Model | EmulatedModel", arithmetic: "Arithmetic", images: np.ndarray) -> np.ndarray:
    """The user's images as uint8 codes in whole batches; BadInput when they do not fit."""
    from hawqtvm.qnn.reference import quantize_input

    if not isinstance(images, np.ndarray) or images.dtype not in (np.float32, np.uint8):
        found = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise BadInput(
            f"images must be a numpy array of float32, or of uint8 for input codes, not {found}: convert them"
        )
    if images.ndim != 4 or images.shape[1:] != model.input_shape[1:] or not len(images) or len(images) % model.batch:
        raise BadInput(f"images have shape {images.shape}; the artifact takes a multiple of {model.input_shape}")
    if images.dtype == np.uint8:
        return images
    if not np.isfinite(images).all():
        raise BadInput("the images hold NaN or infinity; clean them")
    return quantize_input(arithmetic.tensors["input"], images)


def verify(artifact: str | os.PathLike, images: np.ndarray | None = None) -> list[Row]:
    """Compares every quantized tensor of an artifact, with its real fused kernels, with PyTorch's integer model.

    ``images``: uint8 codes or float32 ``(n * batch, C, H, W)``; by default calibration images, noise and extremes.
    Returns a row for each tensor, in execution order.  Raises CheckFailed with the first layer that differs, its
    channel, coordinate and both values (the exception's ``rows`` are the table); BadInput for a damaged artifact.
    """
    from hawqtvm.runtime import load

    return verify_model(load(artifact), images)


def verify_model(model: "Model | EmulatedModel", images: np.ndarray | None = None) -> list[Row]:
    """As :func:`verify`, of an artifact that is loaded or that an emulator runs."""
    arithmetic = reference(model)
    if images is None:
        batches = list(inputs(arithmetic.model.samples, model.input_shape))
    else:
        batches = list(checked_codes(model, arithmetic, images).reshape(-1, *model.input_shape))
    tables = []
    with Progress("verified batches", len(batches)) as progress:
        for batch in batches:
            tables.append(compare(model, arithmetic, batch))
            progress()
    rows = merged(tables)
    for row in rows:
        if row.wrong:
            failure = CheckFailed(
                f"layer {row.layer} is the first that differs ({row.wrong} of {row.codes} codes): {row.first}"
            )
            failure.rows = rows
            raise failure
    return rows


def show(rows: list[Row]) -> str:
    return table(
        ["layer", "tensor", "code", "shape", "codes compared", "exact?", "fake-quant drift"],
        [
            [
                r.layer,
                r.tensor,
                r.code,
                "x".join(map(str, r.shape)),
                r.codes,
                "NO" if r.wrong else "yes",
                f"{r.drift:.1e}",
            ]
            for r in rows
        ],
    )


def main(argv: Sequence[str] | None) -> int:
    parser = Parser("verify", "Compares every quantized tensor of an artifact with PyTorch's integer model.")
    parser.add_argument("artifact", help="the directory deploy wrote")
    options = parser.parse_args(argv)
    try:
        rows, error = verify(options.artifact), None
    except CheckFailed as failure:
        if not hasattr(failure, "rows"):
            raise
        rows, error = failure.rows, failure
    if options.json:
        print_json(
            {"exact": error is None, "error": str(error) if error else None, "layers": [asdict(r) for r in rows]}
        )
    else:
        print(show(rows), flush=True)
    if error:
        raise error
    note(f"all {sum(r.codes for r in rows)} codes of {len(rows)} tensors are equal")
    return 0


if __name__ == "__main__":
    command(main)
