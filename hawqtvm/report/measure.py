"""Raw times of artifacts: rounds in processes of their own, in each of them turns in shuffled order."""

import hashlib
import json
import os
import random
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from hawqtvm.console import Progress
from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.report import machine
from hawqtvm.report.run import Layer, Load, Network, Run
from hawqtvm.runtime import threads as cpu_threads
from hawqtvm.runtime.artifact import Artifact, check_runs_here, read_artifact

ROUNDS, TURNS = 12, 6


def measure(
    paths: Sequence[str | os.PathLike],
    *,
    rounds: int = ROUNDS,
    turns: int = TURNS,
    threads: int | None = None,
    commit: str | None = None,
) -> Run:
    """Times each artifact directory, whole and layer by layer.

    ``threads``: of their kernels, by default as deployed.  ``commit``: what was measured, for histories.  Raises
    BadInput: no artifact, a damaged one, one that cannot run here, two of one name.
    """
    (run,) = _measure([[path] for path in paths], rounds, turns, threads, [commit])
    return run


def measure_pairs(
    base: Sequence[str | os.PathLike],
    head: Sequence[str | os.PathLike],
    *,
    rounds: int = ROUNDS,
    turns: int = TURNS,
    threads: int | None = None,
    commits: tuple[str | None, str | None] = (None, None),
    check: Callable[[Run, Run], None] = lambda base, head: None,
) -> tuple[Run, Run]:
    """Times two sets of artifacts in one go, each beside the other set's at the same position: A B, B A, A B ...

    ``check`` may refuse them before the long work: it sees both runs without any round.
    """
    base, head = _measure(list(zip(base, head, strict=True)), rounds, turns, threads, commits, check)
    return base, head


def _measure(groups, rounds: int, turns: int, threads: int | None, commits, check=lambda run: None) -> tuple[Run, ...]:
    for name, value in (("rounds", rounds), ("turns", turns)):
        if type(value) is not int or value < 1:
            raise BadInput(f"{name} {value!r}: give a whole number, 1 or more")
    groups = [[read_artifact(Path(path)) for path in group] for group in groups]
    for artifact in (artifact for group in groups for artifact in group):
        check_runs_here(artifact)
        cpu_threads.choose(threads, artifact.threads)
    sides = list(zip(*groups, strict=True))
    for side in sides:
        names = [name_of(artifact) for artifact in side]
        if len(set(names)) < len(names):
            raise BadInput(f"two artifacts are called {max(names, key=names.count)}: rename one's directory")
    job = {
        "groups": [[str(artifact.path.resolve()) for artifact in group] for group in groups],
        "threads": threads,
        "turns": turns,
    }
    session, started = secrets.token_hex(16), _now()
    seeds = random.Random(session)
    device, versions = machine.device(), machine.versions()
    load, found = [], []

    def run(number: int, commit: str | None) -> Run:
        networks = tuple(
            _network(artifact, cpu_threads.choose(threads, artifact.threads), [times[place][number] for times in found])
            for place, artifact in enumerate(sides[number])
        )
        return Run(started, commit, session, device, versions, tuple(load), networks)

    def runs() -> tuple[Run, ...]:
        return tuple(run(number, commit) for number, commit in enumerate(commits))

    check(*runs())
    with Progress("rounds", rounds) as progress:
        for _ in range(rounds):
            conditions, times = _round(job | {"seed": seeds.getrandbits(32)})
            load.append(conditions)
            found.append(times)
            progress(f"(others use {conditions.others:.1f} CPUs)")
    return runs()


def _round(job: dict) -> tuple[Load, list[list[dict]]]:
    busy, started = machine.Busy(), _now()
    command = [sys.executable, "-m", "hawqtvm.runtime.turns"]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True)
    if done.returncode:
        kind = BadInput if done.returncode == BadInput.exit_code else CheckFailed
        last = (done.stderr.strip() or f"no message, exit code {done.returncode}").splitlines()[-1]
        raise kind(f"the measuring process failed: {last.removeprefix('error: ')}")
    answer = json.loads(done.stdout)
    others, stolen = busy.others_and_stolen()
    load = Load(
        started=started,
        others=round(others, 3),
        stolen=round(stolen, 3),
        average=os.getloadavg()[0],
        mhz=machine.clock_mhz(),
        yardstick_us=tuple(answer["yardstick"]),
    )
    return load, answer["times"]


def _network(artifact: Artifact, threads: int, rounds: list[dict]) -> Network:
    manifest = artifact.manifest
    bits = manifest["plan"].get("bits")
    return Network(
        name=name_of(artifact),
        path=str(artifact.path),
        model=manifest["model"],
        plan=str(manifest["plan"].get("name")),
        batch=artifact.input_shape[0],
        threads=threads,
        target=str(manifest["target"].get("name")),
        residual=str(manifest.get("residual")),
        activations=str(manifest.get("activations")),
        checkpoint=str(manifest["provenance"].get("checkpoint_sha256")),
        library=artifact.sha256,
        plan_hash=hashlib.sha256(json.dumps(bits, sort_keys=True).encode()).hexdigest(),
        us=tuple(_turns(times["us"]) for times in rounds),
        layers=tuple(
            Layer(
                name=row["name"],
                op=row["op"],
                bits=row["bits"],
                schedule=row.get("schedule", ""),
                config=row.get("config", ""),
                us=tuple(_turns(times["layers"][row["name"]]) for times in rounds),
            )
            for row in manifest["layers"]
        ),
    )


def name_of(artifact: Artifact) -> str:
    return artifact.path.resolve().name


def _turns(turns: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(calls) for calls in turns)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
