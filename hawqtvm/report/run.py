"""A run: what `measure` saw of some artifacts on one machine, and the file that keeps it.

The unit of all analysis is the round, a process of its own: what a process draws once (where its memory lies, which
clock the core has) is alike in all of its calls, so calls of one process are no independent samples.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from hawqtvm.errors import BadInput
from hawqtvm.files import read_json, write_atomic
from schedules.plain_json import from_json, to_json

KIND, VERSION = "hawqtvm-run", 1

Rounds = tuple[tuple[tuple[float, ...], ...], ...]  # microseconds: [round][turn][call]


@dataclass(frozen=True)
class Device:
    """``name``: what runs are filed under; ``driver``: the operating system's version; ``clocks``: the governor."""

    name: str
    cpu: str
    cores: int
    driver: str
    clocks: str


@dataclass(frozen=True)
class Versions:
    """``yardstick``: what the yardstick is computed with; ``tvm``: the compiled runtime's."""

    hawqtvm: str
    tvm: str
    python: str
    numpy: str
    yardstick: str


@dataclass(frozen=True)
class Load:
    """The machine while a round was measured.

    ``others``: CPUs kept busy by other processes; ``stolen``: CPUs the hypervisor gave to others; ``average``: the load
    average over a minute; ``mhz``: the first core's clock, where Linux says; ``yardstick_us``: a fixed computation, a
    number a turn.
    """

    started: str
    others: float
    stolen: float
    average: float
    mhz: float | None
    yardstick_us: tuple[float, ...]


@dataclass(frozen=True)
class Layer:
    """A kernel: what it is, and its times in place."""

    name: str
    op: str
    bits: int | None
    schedule: str
    config: str
    us: Rounds


@dataclass(frozen=True)
class Network:
    """An artifact; ``us``: from input codes to logits.  ``checkpoint``: sha256 of the quantized weights."""

    name: str
    path: str
    model: str
    plan: str
    batch: int
    threads: int
    target: str
    residual: str
    activations: str
    checkpoint: str
    library: str
    plan_hash: str
    us: Rounds
    layers: tuple[Layer, ...]

    @property
    def series(self) -> dict[str | None, Rounds]:
        """The times by layer; None stands for the network."""
        return {None: self.us} | {layer.name: layer.us for layer in self.layers}


@dataclass(frozen=True)
class Run:
    """``session``: runs that share it took turns, so their rounds are pairs."""

    measured: str
    commit: str | None
    session: str
    device: Device
    versions: Versions
    load: tuple[Load, ...]
    networks: tuple[Network, ...]

    def more(self, other: "Run") -> "Run":
        """This run with the rounds of another of the same artifacts after its own."""
        networks = tuple(
            replace(
                mine,
                us=mine.us + theirs.us,
                layers=tuple(replace(a, us=a.us + b.us) for a, b in zip(mine.layers, theirs.layers, strict=True)),
            )
            for mine, theirs in zip(self.networks, other.networks, strict=True)
        )
        return replace(self, load=self.load + other.load, networks=networks)


def write_run(run: Run, path: str | os.PathLike) -> None:
    write_atomic(path, json.dumps({"format": KIND, "version": VERSION} | to_json(run)) + "\n")


def read_run(path: str | os.PathLike) -> Run:
    """BadInput when the file is missing, cut short, of another kind or version, or does not hold a whole run."""
    fields = read_json(path, KIND, VERSION)
    try:
        run = from_json(Run, {key: value for key, value in fields.items() if key not in ("format", "version")})
        _check(run)
    except ValueError as error:
        raise BadInput(f"{path} is a damaged run ({str(error)[:120]}): measure it again") from None
    return run


def _check(run: Run) -> None:
    rounds = len(run.load)
    if not rounds or not run.networks:
        raise ValueError("it holds no rounds or no networks")
    if len({network.name for network in run.networks}) < len(run.networks):
        raise ValueError("two networks share a name")
    turns = [len(load.yardstick_us) for load in run.load]
    if not all(us > 0 for load in run.load for us in load.yardstick_us):
        raise ValueError("a yardstick's time is not above 0")
    for network in run.networks:
        for layer, series in network.series.items():
            if [len(turn) for turn in series] != turns or not all(turn for round_ in series for turn in round_):
                raise ValueError(f"{network.name}: {layer or 'the network'} has not the rounds and turns of the run")
            if not all(0 < us < float("inf") for round_ in series for turn in round_ for us in turn):
                raise ValueError(f"{network.name}: {layer or 'the network'} has a time that is none")


def artifacts_in(path: str | os.PathLike) -> list[Path]:
    """The artifact directory ``path``, or those in it, by name; BadInput when there is none."""
    path = Path(path)
    if (path / "manifest.json").is_file() or not path.is_dir():
        return [path]
    found = sorted(child for child in path.iterdir() if (child / "manifest.json").is_file())
    if not found:
        raise BadInput(f"{path} holds no artifact; python -m hawqtvm.deploy writes one")
    return found
