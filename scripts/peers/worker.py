"""The process in which one system runs: `python -m scripts.peers.worker`, JSON lines on stdin and stdout.

Commands and answers:
    {"do": "open", "engine", "path", "check", "batch", "threads"} -> {"ready": true, "error": e}
        e: the L2 distance to the float32 network's logits, as a share of their L2 norm
    {"do": "time", "count": n} -> {"ms": [n wall times of one inference]}
    {"do": "first", "engine", "path", "shape", "batch", "threads"} -> {"ready": true}   (load and one inference)
    {"do": "memory", "engine", "path", "shape", "batch", "threads", "count": n} -> {"imported", "loaded", "ran"}
        what the process holds with the engine's libraries alone, with the network, and after n inferences, each
        {"rss", "private_dirty", "peak"} in bytes
    {"do": "quit"}
A failure answers {"failed": reason}.
"""

import json
import os
import sys
import time

import numpy as np

from scripts.peers.engines import IMPORTERS, OPENERS
from scripts.peers.proc import held

WARM_S = 0.2


class Worker:
    """Holds one opened network and its input, float32 (batch, C, H, W)."""

    def open(self, command: dict) -> dict:
        """Load the network and compare it with the float32 logits once."""
        with np.load(command["check"]) as file:
            images, expected = file["images"], file["logits"]
        batch = command["batch"]
        rows = np.arange(batch) % len(images)
        self.images, expected = np.ascontiguousarray(images[rows]), expected[rows]
        self.infer = OPENERS[command["engine"]](command["path"], batch, command["threads"])
        logits = np.asarray(self.infer(self.images), np.float64)
        if logits.shape != expected.shape:
            return {"failed": f"logits of shape {logits.shape} instead of {expected.shape}"}
        return {"ready": True, "error": float(np.linalg.norm(logits - expected) / np.linalg.norm(expected))}

    def time(self, command: dict) -> dict:
        """Time `count` inferences, after a while of others.

        These wake threads, refill caches that the other systems used, and let a host spread the processors of a virtual
        machine, which it may have put on one core while they slept.
        """
        warm = time.perf_counter() + WARM_S
        self.infer(self.images)
        while time.perf_counter() < warm:
            self.infer(self.images)
        samples = []
        for _ in range(command["count"]):
            start = time.perf_counter()
            self.infer(self.images)
            samples.append((time.perf_counter() - start) * 1e3)
        return {"ms": samples}

    def first(self, command: dict) -> dict:
        """The shortest way to a first result, for cold starts."""
        images = np.zeros(command["shape"], np.float32)
        np.asarray(OPENERS[command["engine"]](command["path"], command["batch"], command["threads"])(images))
        return {"ready": True}

    def memory(self, command: dict) -> dict:
        """What the libraries, the network and its inferences take; only a fresh process tells them apart."""
        images = np.ones(command["shape"], np.float32)
        IMPORTERS[command["engine"]]()
        answer = {"imported": held()}
        infer = OPENERS[command["engine"]](command["path"], command["batch"], command["threads"])
        answer["loaded"] = held()
        for _ in range(command["count"]):
            infer(images)
        return {**answer, "ran": held()}


def main() -> None:
    """Answer commands until told to quit or stdin ends."""
    # libraries print to stdout as they like: keep the real one for answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "quit":
            break
        try:
            answer = getattr(worker, command["do"])(command)
        except Exception as error:  # whatever a library raises is this system's result
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
