"""What is known of a network's layers: from a quantized model and measured files, or from a table."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hawqtvm.allocate.problem import SENSITIVITY, Problem, quantity
from hawqtvm.errors import BadInput
from hawqtvm.files import parse_json, sha256_file

if TYPE_CHECKING:
    from hawqtvm.qnn.model import QuantizedModel

VERSION = 1
SENSITIVITY_FILE, LATENCY_FILE, TABLE_FILE = "sensitivity file", "latency profile", "table of layers"
BUILT_FOR = ("device", "driver", "target", "threads", "batch", "residual", "activations")


def measured_problem(
    quantized: "QuantizedModel", checkpoint: str | None, sensitivity: str | Path, latency: str | Path | None = None
) -> Problem:
    """The problem of a quantized model from sensitivity.json and, where latency matters, latency.json.

    ``checkpoint``: the sha256 of its weights.  Size is that of the weights at their bits, BOPS = MACs * bits_w * bits_a
    an image.  Raises BadInput that names the file and the layer: missing, NaN, infinite or negative values, another
    model or checkpoint, another version.
    """
    steps = quantized.graph.layers
    names = [step.name for step in steps]
    fixed = dict.fromkeys(quantized.graph.fixed(), 8)
    weights = {name: quantized.layers[name].weight.size for name in names}
    macs = {step.name: weights[step.name] * step.dims[1] * step.dims[2] for step in steps}
    found = _measured(sensitivity, SENSITIVITY_FILE, quantized.name, checkpoint)
    values = found.layers(names, fixed, losses=True)
    quantities = {
        SENSITIVITY: quantity(values, pairs=found.pairs(names)),
        "size": quantity({name: {bits: weights[name] * bits / 8 for bits in (4, 8)} for name in names}),
        "bops": quantity({name: {bits: float(macs[name] * bits**2) for bits in (4, 8)} for name in names}),
    }
    provenance = {
        "sensitivity_method": found.data.get("method"),
        "sensitivity_labels": found.data.get("labels"),
        "sensitivity_sha256": found.sha256,
    }
    if latency is not None:
        found = _measured(latency, LATENCY_FILE, quantized.name, checkpoint)
        other = found.number(found.data.get("other_us"), "other_us")
        quantities["latency"] = quantity(found.layers(names, fixed), other, edges=found.edges(names, fixed))
        provenance |= {"latency_sha256": found.sha256, "tuning_log": found.data.get("tuning_log")}
        provenance |= {key: found.data.get(key) for key in BUILT_FOR}
    tied = tuple(tuple(group) for group in quantized.graph.tied())
    return Problem(tuple(names), tied, fixed, quantities, quantized.name, checkpoint, provenance)


def table_problem(path: str | Path) -> Problem:
    """The problem that a table of layers states: ``{"layers": [...], "tied": [[name, ...], ...]}``.

    A layer has "name", "hessian_trace" and "weight_error_sq" {"4", "8"} (their product is its sensitivity), and, for
    the limits on them, "parameters" (2**20 weights), "macs" (10**6 an image), "latency_ms" {"4", "8"}.  A quantity
    that no layer has is not known; one that only some have is BadInput, as in :func:`measured_problem`.
    """
    table = _File(path, TABLE_FILE)
    rows, tied = table.data.get("layers"), table.data.get("tied", [])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise table.bad("needs 'layers', a list of objects with a name each")
    names = [row.get("name") for row in rows]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise table.bad("needs a name for each of its layers, no two the same")
    if not isinstance(tied, list) or not all(isinstance(group, list) for group in tied):
        raise table.bad("needs 'tied' to be a list of lists of layers")
    members = [table.known(name, names, "tied") for group in tied for name in group]
    if len(set(members)) < len(members):
        raise table.bad("ties a layer twice; put all the layers that share their bits in one list")

    def column(key: str, by_bits: dict[int, float]) -> dict[str, dict[int, float]]:
        if any(key in row for row in rows):
            found = {row["name"]: table.number(row.get(key), f"layer {row['name']}: {key}") for row in rows}
            return {name: {bits: value * factor for bits, factor in by_bits.items()} for name, value in found.items()}
        return {}

    def two(key: str, factor: float) -> dict[str, dict[int, float]]:
        if any(key in row for row in rows):
            return {row["name"]: table.both(row.get(key), f"layer {row['name']}: {key}", factor) for row in rows}
        return {}

    traces, errors = column("hessian_trace", {0: 1.0}), two("weight_error_sq", 1.0)
    if not traces or not errors:
        raise table.bad("needs 'hessian_trace' and 'weight_error_sq' of every layer")
    columns = {
        SENSITIVITY: {name: {b: traces[name][0] * error for b, error in errors[name].items()} for name in names},
        "size": column("parameters", {bits: 2**20 * bits / 8 for bits in (4, 8)}),
        "bops": column("macs", {bits: 1e6 * bits**2 for bits in (4, 8)}),
        "latency": two("latency_ms", 1e3),
    }
    quantities = {key: quantity(values) for key, values in columns.items() if values}
    provenance = {"table_sha256": table.sha256, "sensitivity_method": "hessian"}
    return Problem(tuple(names), tuple(map(tuple, tied)), {}, quantities, provenance=provenance)


class _File:
    """A JSON object and what it says of layers; every complaint names the file and the place in it."""

    def __init__(self, path: str | Path, kind: str):
        self.path, self.kind = Path(path), kind
        self.data = parse_json(self.path, kind, "name the right file, or run the stage that writes it")
        self.sha256 = sha256_file(self.path)
        if not isinstance(self.data, dict):
            raise self.bad("is not a JSON object")

    def bad(self, what: str) -> BadInput:
        return BadInput(f"the {self.kind} {self.path} {what}; write it again, or name the right file")

    def number(self, value, where: str, signed: bool = False) -> float:
        """A finite number, 0 or more unless ``signed``."""
        if value is None:
            raise self.bad(f"lacks {where}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.bad(f"has {value!r} at {where}: not a finite number")
        if value < 0 and not signed:
            raise self.bad(f"has {value!r} at {where}: not a number of 0 or more")
        return float(value)

    def both(
        self, value, where: str, factor: float = 1.0, bits: Iterable[int] = (4, 8), signed: bool = False
    ) -> dict[int, float]:
        """{bits: number} from {"4": number, "8": number}."""
        value = self.object(value, where)
        return {b: factor * self.number(value.get(str(b)), f"{where} at {b} bits", signed) for b in bits}

    def object(self, value, where: str) -> dict:
        if not isinstance(value, dict):
            raise self.bad(f"lacks {where}" if value is None else f"has {value!r} at {where}: not an object")
        return value

    def known(self, name, names: list[str], where: str) -> str:
        if name not in names:
            raise self.bad(f"names layer {name!r} in {where}, which the model does not have")
        return name

    def layers(self, names: list[str], fixed: dict[str, int], losses: bool = False) -> dict[str, dict[int, float]]:
        """Both values of the layers a plan may set, and those at 8 bits of the fixed.

        ``losses``: of either sign, and 0 where a fixed layer has none.
        """
        listed = self.object(self.data.get("layers"), "layers")
        for name in listed:
            self.known(name, names, "layers")
        absent = {"8": 0.0} if losses else None
        return {
            name: self.both(
                listed.get(name, absent if name in fixed else None),
                f"layer {name}",
                bits=(8,) if name in fixed else (4, 8),
                signed=losses,
            )
            for name in names
        }

    def listed(self, key: str) -> list[dict]:
        entries = self.data.get(key) or []
        if not isinstance(entries, list):
            raise self.bad(f"has {key!r} that is not a list")
        return [self.object(entry, f"{key}[{i}]") for i, entry in enumerate(entries)]

    def pairs(self, names: list[str]) -> list[tuple[str, str, float]]:
        """(a, b, the extra loss when both are at 4 bits), which may be negative."""
        found = {}
        for i, entry in enumerate(self.listed("pairs")):
            where, layers, value = f"pairs[{i}]", entry.get("layers"), entry.get("value")
            if not isinstance(layers, list) or len(layers) != 2 or layers[0] == layers[1]:
                raise self.bad(f"needs two layers at {where}")
            pair = tuple(sorted(self.known(name, names, where) for name in layers))
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise self.bad(f"has {value!r} at {where}: not a finite number")
            if pair in found:
                raise self.bad(f"has the pair {', '.join(pair)} twice")
            found[pair] = float(value)
        return [(a, b, value) for (a, b), value in found.items()]

    def edges(self, names: list[str], fixed: dict[str, int]) -> list[tuple[str, str, float, float]]:
        """(from, to, microseconds where it goes from 4 to 8 bits, from 8 to 4, of either sign); 0 where none does."""
        found = []
        for i, entry in enumerate(self.listed("edges")):
            where = f"edges[{i}]"
            a, b = (self.known(entry.get(key), names, where) for key in ("from", "to"))
            us = self.object(entry.get("us"), f"{where} us")
            down, up = (
                0.0 if low in fixed else self.number(us.get(key), f"{where} us {key}, from {a} to {b}", signed=True)
                for low, key in ((a, "4-8"), (b, "8-4"))
            )
            found.append((a, b, down, up))
        return found


def _measured(path: str | Path, kind: str, model: str, checkpoint: str | None) -> _File:
    """A stage's file, of this version, this model and these weights."""
    file = _File(path, kind)
    if type(file.data.get("version")) is not int or file.data["version"] != VERSION:
        raise file.bad(f"has version {file.data.get('version')!r}, this hawqtvm reads {VERSION}")
    if file.data.get("model") != model:
        raise file.bad(f"is of the model {file.data.get('model')!r}, not of {model}")
    if checkpoint is not None and file.data.get("checkpoint") != checkpoint:
        raise file.bad(f"is of other quantized weights ({file.data.get('checkpoint')}, not {checkpoint})")
    return file
