"""What a latency table predicts for a network beside what was measured, each device under its own name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hawqtvm.errors import BadInput
from hawqtvm.files import parse_json
from hawqtvm.report.compare import median_us
from hawqtvm.report.run import Network, Run

VERSION = 1
SAME = ("model", "checkpoint", "threads", "batch", "residual", "activations", "target")


@dataclass(frozen=True)
class Prediction:
    """``device``: the table's; ``measured_us``: None where the run is another device's; ``layers``: (name, predicted
    microseconds, measured) of those in the table."""

    device: str
    network: str
    predicted_us: float
    measured_us: float | None
    layers: tuple[tuple[str, float, float | None], ...]


def predictions(run: Run, tables: Sequence[str]) -> list[Prediction]:
    """What latency.json files say of the run's networks: the sum of their layers at the network's bits, of the edges
    where bits change, and of what no plan changes.

    BadInput for a file that is no such table, or fits none of the networks.
    """
    found = []
    for path in tables:
        table = read_latency(path)
        networks = [n for n in run.networks if all(table.get(name) == getattr(n, name) for name in SAME)]
        if not networks:
            of = ", ".join(f"{name} {str(table.get(name))[:12]}" for name in SAME)
            raise BadInput(f"{path} is of {of}: none of the measured networks; give the table of one")
        found += [_predict(table, network, run, path) for network in networks]
    return found


def read_latency(path: str) -> dict:
    """BadInput when ``path`` is no latency.json of version 1."""
    table = parse_json(Path(path), "latency table", "give a latency.json")
    if not isinstance(table, dict) or table.get("version") != VERSION or not isinstance(table.get("layers"), dict):
        raise BadInput(f"{path} is no latency table of version {VERSION}: write it again")
    return table


def _predict(table: dict, network: Network, run: Run, path: str) -> Prediction:
    here = table.get("device") in (run.device.name, run.device.cpu)
    bits = {layer.name: layer.bits for layer in network.layers if layer.bits is not None}
    measured = {layer.name: median_us(layer.us) if here else None for layer in network.layers}
    try:
        layers = tuple((name, float(table["layers"][name][str(bits[name])]), measured[name]) for name in bits)
        total = sum(us for _, us, _ in layers) + float(table["other_us"])
        for edge in table.get("edges", ()):
            total += float(edge["us"].get(f"{bits[edge['from']]}-{bits[edge['to']]}", 0.0))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BadInput(f"{path} lacks what {network.name} needs ({reason}): make it again") from None
    return Prediction(str(table["device"]), network.name, total, median_us(network.us) if here else None, layers)
