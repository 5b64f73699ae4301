"""Memory of the processes that hold a network, and the network's size on disk; all in bytes."""

import json
from collections.abc import Callable
from pathlib import Path

from scripts.peers.process import Process, SystemFailed
from scripts.peers.systems import SYSTEMS, Build, Case

INFERENCES = 10


def disk_size(engine: str, network: Path) -> dict[str, int | None]:
    """Bytes of a built network: "run", what running it needs; "weights" of it, where known; "all" that lies there.

    An artifact of ours also holds the checkpoint that it is verified with.
    """
    if engine == "hawqtvm":
        manifest = network / "manifest.json"
        facts = json.loads(manifest.read_text())
        every = sum(path.stat().st_size for path in network.rglob("*") if path.is_file())
        run = manifest.stat().st_size + (network / facts["library"]).stat().st_size
        return {"run": run, "weights": facts["size"]["weights"], "all": every}
    run = network.stat().st_size
    weights = network.with_suffix(".bin").stat().st_size if engine == "openvino" else None
    return {"run": run + (weights or 0), "weights": weights, "all": run + (weights or 0)}


def memory_case(
    case: Case,
    failures: dict[str, str],
    build: Build,
    shape: tuple[int, int, int],
    runs: int,
    say: Callable[[str], None],
) -> dict:
    """What each system's process holds, in `runs` fresh processes of each.

    Args:
        failures: each system of the comparison, with why it could not be built or "".
        shape: (C, H, W) of an image.

    Returns:
        {"model", "batch", "threads", "systems": {name: {"runs": [worker's answer to "memory", ...], "disk"} or
        {"runs": [...], "failed": reason}}}.
    """
    results = {}
    for name, why in failures.items():
        say(f"{case}: memory of {name}")
        results[name] = {"runs": [], **({"failed": why} if why else {})}
        if why:
            continue
        engine, network = SYSTEMS[name].engine, build.network(name, case)
        try:
            results[name]["disk"] = disk_size(engine, network)
            for _ in range(runs):
                with Process(build.log(name)) as worker:
                    found = worker.ask(
                        "memory",
                        engine=engine,
                        path=str(network),
                        shape=[case.batch, *shape],
                        batch=case.batch,
                        threads=case.threads,
                        count=INFERENCES,
                    )
                    results[name]["runs"].append(found)
        except SystemFailed as error:
            results[name]["failed"] = str(error)
    return {"model": case.model, "batch": case.batch, "threads": case.threads, "systems": results}
