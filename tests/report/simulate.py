"""Runs of a machine that is not there: known times under known noise."""

from dataclasses import replace

import numpy as np

from hawqtvm.report.run import Device, Layer, Load, Network, Run, Versions

LAYERS = {"stem": 120.0, "body.0": 60.0, "body.1": 58.0, "tail": 8.0, "fc": 2.5}
ROUNDS, TURNS, CALLS = 15, 6, 4
YARDSTICK = 600.0
JITTER = 0.004  # of a call, on a machine of one's own
ALIGNMENT = 0.003  # what a process draws for each layer of each artifact

DEVICE = Device("some-cpu-2-cores", "Some CPU", 2, "Linux 6.1", "performance")
VERSIONS = Versions("0.1.0", "0.27.0", "3.11.2", "2.4.0", "OpenSSL 3")


def speeds(noise: str, rng: np.random.Generator, rounds: int = ROUNDS) -> np.ndarray:
    """How many times longer everything takes, [round][turn]."""
    shape = rounds, TURNS
    if noise == "quiet":
        return np.ones(shape)
    if noise == "drift":
        return np.exp(np.linspace(0, 0.3, rounds * TURNS)).reshape(shape)
    if noise == "bimodal":  # a clock that changes now and then, by 1.6 times
        return 1.6 ** (np.cumsum(rng.random(rounds * TURNS) < 0.1) % 2).reshape(shape)
    if noise == "walk":
        return np.exp(np.cumsum(rng.normal(0, 0.03, rounds * TURNS))).reshape(shape)
    assert noise == "bursts"
    return np.ones(shape)


def times(us: float, speed: np.ndarray, noise: str, rng: np.random.Generator):
    """[round][turn][call] of what takes ``us`` undisturbed."""
    shape = (*speed.shape, CALLS)
    found = us * speed[..., None] * np.exp(np.abs(rng.normal(0, JITTER, shape)))
    found *= np.exp(rng.normal(0, ALIGNMENT, (len(speed), 1, 1)))
    if noise == "bursts":  # another process gets the core for some turns
        found *= 1 + rng.exponential(1.0, (*speed.shape, 1)) * (rng.random((*speed.shape, 1)) < 0.3)
    return tuple(tuple(tuple(float(call) for call in turn) for turn in turns) for turns in found)


def run(speed: np.ndarray, rng, noise="quiet", slower=None, session="s", network=1.0, **changes) -> Run:
    """A run at these speeds; ``slower``: {layer: factor}, ``network``: a factor on the whole beside these."""
    slower = slower or {}
    us = {name: base * slower.get(name, 1.0) for name, base in LAYERS.items()}
    layers = tuple(
        Layer(name, "qnn.conv2d", 8, "direct_conv2d", "Config(oc_block=16)", times(value, speed, noise, rng))
        for name, value in us.items()
    )
    whole = times(network * sum(us.values()), speed, noise, rng)
    yardstick = YARDSTICK * speed * np.exp(np.abs(rng.normal(0, JITTER, speed.shape)))
    load = tuple(
        Load(f"2026-01-01T00:00:{i % 60:02}+00:00", 0.1, 0.0, 0.5, 2500.0, tuple(map(float, row)))
        for i, row in enumerate(yardstick)
    )
    digest = {name: name[0] * 64 for name in ("checkpoint", "library", "plan")}
    net = Network(
        "net", "artifacts/net", "net", "mixed", 1, 1, "x86-64", "int16", "bytes", *digest.values(), whole, layers
    )
    made = Run("2026-01-01T00:00:00+00:00", "c" * 40, session, DEVICE, VERSIONS, load, (net,))
    return replace(made, **changes)


def in_turns(noise: str, rng, rounds: int = ROUNDS, session="s", **head) -> tuple[Run, Run]:
    """Base and head of one session: what the machine does weighs on both."""
    speed = speeds(noise, rng, rounds)
    return run(speed, rng, noise, session=session), run(speed, rng, noise, session=session, **head)


def apart(noise: str, rng, rounds: int = ROUNDS, **head) -> tuple[Run, Run]:
    """Base and head of two sessions, one after the other."""
    speed = speeds(noise, rng, 2 * rounds)
    return run(speed[:rounds], rng, noise, session="a"), run(speed[rounds:], rng, noise, session="b", **head)
