"""One workload on the device: every candidate checked, then all timed; in a process that a kernel may ruin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable

from .bundle import Bundle
from .driver import Driver, DriverError
from .tensors import kept, made
from .timing import CALLS, Stopwatch, race

UNWRITTEN = 0x5A  # in every byte of an output before a kernel runs
CHECKED = 3  # sets of buffers on which a candidate is checked
LEAST_SETS, MOST_SETS = 8, 64
ALIGNED = 256  # bytes between buffers
RUINED = 3  # exit code: the driver takes no more calls of this process


def work(bundle: Bundle, number: int, left_out: Iterable[int], device: int, timed: bool) -> int:
    """Says on stdout, a JSON object a line, which candidate's turn ``begins``, which was ``checked``, the ``times``.

    Returns the exit code; before RUINED it says the ``fault``.
    """

    def say(**what: object) -> None:
        print(json.dumps(what), flush=True)

    try:
        bench = Bench(bundle, bundle.workloads[number], device)
        right = []
        for index in sorted(set(range(len(bench.candidates))) - set(left_out)):
            say(begins=index)
            error = bench.check(index)
            say(checked=index, error=error)
            if error is None:
                right.append(index)
        if timed:
            say(times=race({index: bench.turn(index, lambda at: say(begins=at)) for index in right}))
    except DriverError as error:
        say(fault=str(error))
        return RUINED
    return 0


class Bench:
    """A workload's tensors and kernels on the device.

    There are several sets of buffers, together larger than the second-level cache where memory allows, and launches go
    through them in turn: one does not find what the one before has left in the cache.
    """

    def __init__(self, bundle: Bundle, workload: dict, device: int) -> None:
        self.bundle, self.outputs, self.candidates = bundle, workload["outputs"], workload["candidates"]
        self.driver = Driver()
        l2_bytes = self.driver.facts(device).l2_bytes
        self.driver.use(device)
        self.stopwatch = Stopwatch(self.driver, l2_bytes)
        self.sets = self._count_sets(l2_bytes)
        self._places: dict[str, int] = {}
        self._launches: dict[int, list[list[Callable[[], None]]]] = {}

    def check(self, index: int) -> str | None:
        """Why the candidate's outputs are not the exact ones, or it does not load; None where all is right.

        DriverError where its kernel fails.
        """
        candidate = self.candidates[index]
        try:
            self._launches[index] = self._load(candidate)
        except DriverError as error:
            return str(error)
        places = [self._place(buffer) for buffer in self._buffers(candidate) if "output" in buffer]
        for at in range(min(self.sets, CHECKED)):
            for place, output in zip(places, self.outputs):
                self.driver.fill(place + at * aligned(output["bytes"]), UNWRITTEN, output["bytes"])
            for launch in self._launches[index][at]:
                launch()
            self.driver.wait()
            for number, (place, output) in enumerate(zip(places, self.outputs)):
                data = self.driver.read(place + at * aligned(output["bytes"]), output["bytes"])
                if hashlib.sha256(kept(data, output.get("mask"), self.bundle.blob)).hexdigest() != output["sha256"]:
                    untouched = data.count(UNWRITTEN) == len(data)
                    return f"output {number} {'was not written' if untouched else 'differs from the exact one'}"
        return None

    def turn(self, index: int, begins: Callable[[int], None]) -> Callable[[], list[float]]:
        """What times a checked candidate: microseconds of each of its calls, a mean over the sets of buffers."""

        def timed() -> list[float]:
            begins(index)
            launches = [launch for of_set in self._launches[index] for launch in of_set]
            each = len(launches) // self.sets
            return [round(each * self.stopwatch.time(launches), 3) for _ in range(CALLS)]

        return timed

    def _count_sets(self, l2_bytes: int) -> int:
        distinct = {name(buffer): buffer for candidate in self.candidates for buffer in self._buffers(candidate)}
        one = sum(aligned(buffer["bytes"]) for buffer in self._buffers(self.candidates[0]))
        wanted = min(max(2 * l2_bytes // one + 1, LEAST_SETS), MOST_SETS)
        allowed = self.driver.free_bytes() // 2 // sum(aligned(buffer["bytes"]) for buffer in distinct.values())
        return max(1, min(wanted, allowed))

    def _buffers(self, candidate: dict) -> list[dict]:
        """The kernel's arguments, then its workspaces."""
        return candidate["arguments"] + [{"workspace": i, "bytes": n} for i, n in enumerate(candidate["workspaces"])]

    def _load(self, candidate: dict) -> list[list[Callable[[], None]]]:
        """For each set of buffers what begins its kernels, in order."""
        image, buffers = self.bundle.blob(candidate["cubin"]), self._buffers(candidate)
        places = [self._place(buffer) for buffer in buffers]
        kernels = [self.driver.function(image, each["kernel"], each["shared"]) for each in candidate["launches"]]

        def launch(kernel: object, each: dict, at: int) -> Callable[[], None]:
            addresses = [places[i] + at * aligned(buffers[i]["bytes"]) for i in each["buffers"]]
            return self.driver.launch(kernel, each["grid"], each["block"], each["shared"], addresses)

        pairs = list(zip(kernels, candidate["launches"]))
        return [[launch(kernel, each, at) for kernel, each in pairs] for at in range(self.sets)]

    def _place(self, buffer: dict) -> int:
        """Where the buffer's first copy is; candidates that take the same tensor share it."""
        key, step = name(buffer), aligned(buffer["bytes"])
        if key not in self._places:
            self._places[key] = self.driver.allocate(self.sets * step)
            if "seed" in buffer or "blob" in buffer:
                self.driver.write(self._places[key], made(buffer, self.bundle.blob))
                for at in range(1, self.sets):
                    self.driver.copy(self._places[key] + at * step, self._places[key], buffer["bytes"])
        return self._places[key]


def name(buffer: dict) -> str:
    return json.dumps(buffer, sort_keys=True)


def aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
