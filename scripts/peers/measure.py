"""Interleaved timing of several systems, and cold starts. One process computes at a time."""

import json
import subprocess
import sys
import time
from collections.abc import Callable

from scripts.peers.process import Process, SystemFailed
from scripts.peers.systems import SYSTEMS, Build, Case

# idle threads of a system spin for a while after its turn: let them go to sleep before the next one
PAUSE_S = 0.1
ROUND_MS = 400
COUNT_LIMITS = (3, 20)
Say = Callable[[str], None]


def measure_case(case: Case, failures: dict[str, str], build: Build, rounds: int, say: Say) -> dict:
    """Time every system on one case, in turns: A B C A B C ...

    Args:
        failures: each system of the comparison, with why it could not be built or "".
        build: the networks that `build_all` left.

    Returns:
        {"model", "batch", "threads", "systems": {name: {"rounds": [[ms, ...], ...], "error": e, "count": n} or
        {"rounds": [...], "failed": reason}}}; a system that fails midway keeps its rounds and gets no more.
    """
    results = {name: {"rounds": [], **({"failed": why} if why else {})} for name, why in failures.items()}
    workers: dict[str, Process] = {}
    try:
        for name, why in failures.items():
            if not why:
                _attempt(results[name], lambda name=name: _open(name, case, build, workers, results[name]))
        for number in range(rounds):
            say(f"{case}: round {number + 1} of {rounds}")
            for name, worker in workers.items():
                if "failed" not in results[name]:
                    time.sleep(PAUSE_S)
                    _attempt(
                        results[name],
                        lambda worker=worker, result=results[name]: result["rounds"].append(
                            worker.ask("time", count=result["count"])["ms"]
                        ),
                    )
    finally:
        for worker in workers.values():
            worker.close()
    return {"model": case.model, "batch": case.batch, "threads": case.threads, "systems": results}


def _open(name: str, case: Case, build: Build, workers: dict[str, Process], result: dict) -> None:
    """Start a system's worker, warm it up, and choose how many inferences make a round of about ROUND_MS."""
    worker = workers[name] = Process(build.log(name))
    answer = worker.ask(
        "open",
        engine=SYSTEMS[name].engine,
        path=str(build.network(name, case)),
        check=str(build.check(case.model)),
        batch=case.batch,
        threads=case.threads,
    )
    result["error"] = answer["error"]
    fastest = min(worker.ask("time", count=COUNT_LIMITS[0])["ms"])
    least, most = COUNT_LIMITS
    result["count"] = max(least, min(most, round(ROUND_MS / fastest)))


def cold_starts(
    case: Case, failures: dict[str, str], build: Build, shape: tuple[int, int, int], runs: int, say: Say
) -> dict:
    """Milliseconds from starting a fresh process to its first logits, `runs` times each, in turns.

    Returns:
        {"model", "batch", "threads", "systems": {name: {"ms": [...]} or {"ms": [...], "failed": reason}}}.
    """
    results = {name: {"ms": [], **({"failed": why} if why else {})} for name, why in failures.items()}
    # the first turn only fills the page cache
    for number in range(runs + 1):
        say(f"cold start: run {number} of {runs}")
        for name, result in results.items():
            if "failed" not in result:
                _attempt(
                    result, lambda name=name, result=result: result["ms"].append(_cold_start(name, case, build, shape))
                )
    for result in results.values():
        del result["ms"][:1]
    return {"model": case.model, "batch": case.batch, "threads": case.threads, "systems": results}


def _cold_start(name: str, case: Case, build: Build, shape: tuple[int, int, int]) -> float:
    start = time.perf_counter()
    with Process(build.log(name)) as worker:
        worker.ask(
            "first",
            engine=SYSTEMS[name].engine,
            path=str(build.network(name, case)),
            shape=[case.batch, *shape],
            batch=case.batch,
            threads=case.threads,
        )
        return (time.perf_counter() - start) * 1e3


def _attempt(result: dict, action: Callable[[], None]) -> None:
    try:
        action()
    except SystemFailed as error:
        result["failed"] = str(error)


def build_all(names: list[str], cases: list[Case], build: Build, say: Say) -> dict[tuple[str, str], str]:
    """Build what is missing, each engine in a process of its own.

    Returns:
        (system, model) -> why it could not be built, or "".
    """
    failures = {}
    for model in dict.fromkeys(case.model for case in cases):
        say(f"{model}: float32 network")
        base = _run_builder("onnx", model, [], build)
        for engine in dict.fromkeys(SYSTEMS[name].engine for name in names):
            wanted = [name for name in names if SYSTEMS[name].engine == engine]
            say(f"{model}: building {', '.join(wanted)}")
            jobs = [[name, case.batch, case.threads] for name in wanted for case in cases if case.model == model]
            why = base or _run_builder(engine, model, jobs, build)
            # one of ours may be built although a later one failed
            for name in wanted:
                done = all(build.network(name, case).exists() for case in cases if case.model == model)
                failures[name, model] = "" if done and not base else why or "the builder left nothing"
    return failures


def _run_builder(engine: str, model: str, jobs: list, build: Build) -> str:
    """Run `build` in a process; the answer is the last line of its stderr if it fails, else ""."""
    job = json.dumps(
        {"engine": engine, "model": model, "folder": str(build.folder), "sources": build.sources, "cases": jobs}
    )
    done = subprocess.run(
        [sys.executable, "-m", "scripts.peers.build", job], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    log = build.log(f"build-{model}-{engine}")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(done.stderr)
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return f"not built: {lines[-1] if lines else f'code {done.returncode}'}"
