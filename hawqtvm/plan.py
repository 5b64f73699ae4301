"""A plan: which layer gets 4 bits and which 8, as ``plan.json`` or as a number for all."""

from dataclasses import dataclass, field
from pathlib import Path

from hawqtvm.errors import BadInput
from hawqtvm.files import parse_json

VERSION = 1


@dataclass(frozen=True)
class Plan:
    """``bits``: {layer: 4 or 8}, or the number that all layers take (the fixed ones stay at 8).

    ``model``: the model the plan is for, if it says; ``checkpoint``: the sha256 of its quantized weights, if it says;
    ``provenance``: whatever else the plan's author noted.
    """

    bits: dict[str, int] | int
    name: str
    model: str | None = None
    checkpoint: str | None = None
    provenance: dict = field(default_factory=dict)

    def check_belongs(self, model: str, checkpoint: str | None) -> None:
        """BadInput when the plan was made for another model, or for other quantized weights."""
        if self.model not in (None, model):
            raise BadInput(
                f"{self.name} is a plan for {self.model}, not for {model}; give --model {self.model} or another plan"
            )
        if self.checkpoint and checkpoint and self.checkpoint != checkpoint:
            raise BadInput(
                f"{self.name} was made for a checkpoint with sha256 {self.checkpoint[:12]}..., this one is "
                f"{checkpoint[:12]}...; make the plan again or give its checkpoint"
            )

    def made_elsewhere(self, here: dict) -> str:
        """What the plan's latencies were measured for, where that is not ``here``: "batch 8 (here 1)"; "" if all is."""
        known = {key: self.provenance[key] for key in here if self.provenance.get(key) is not None}
        return ", ".join(f"{key} {value} (here {here[key]})" for key, value in known.items() if value != here[key])

    def to_json(self) -> dict:
        return {
            "version": VERSION,
            "model": self.model,
            "bits": self.bits,
            "checkpoint": self.checkpoint,
            "provenance": self.provenance,
        }


def uniform(bits: int) -> Plan:
    return Plan(bits, f"int{bits}")


def load_plan(text: str) -> Plan:
    """``"4"``, ``"8"`` or the path of a plan.json ``{"version": 1, "model": "...", "bits": {layer: 4 or 8}}``.

    Raises BadInput: no such file, not JSON, another version, no bits, a value that is neither 4 nor 8.
    """
    if text.isdigit():
        if text not in ("4", "8"):
            raise BadInput(f"--bits {text}: bits must be 4 or 8, or the path of a plan.json")
        return uniform(int(text))
    path = Path(text)
    data = parse_json(path, "plan", "give a plan.json, 4 or 8")
    if not isinstance(data, dict) or not isinstance(data.get("bits"), dict):
        raise BadInput(
            f'{path} is not a plan: it needs {{"version": {VERSION}, "model": ..., "bits": {{layer: 4 or 8}}}}'
        )
    if type(data.get("version")) is not int or data["version"] != VERSION:
        raise BadInput(f"{path} is a plan of version {data.get('version')!r}; this hawqtvm reads version {VERSION}")
    for layer, bits in data["bits"].items():
        if type(bits) is not int or bits not in (4, 8):
            raise BadInput(f"{path}: layer {layer} has bits {bits!r}; bits must be 4 or 8")
    for key in ("model", "checkpoint"):
        if not isinstance(data.get(key), str | None):
            raise BadInput(f"{path}: {key!r} must be a string, not {data[key]!r}")
    provenance = data.get("provenance") or {}
    if not isinstance(provenance, dict):
        raise BadInput(f"{path}: 'provenance' must be an object, not {provenance!r}")
    return Plan(data["bits"], path.stem, data.get("model"), data.get("checkpoint"), provenance)
