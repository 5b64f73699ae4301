"""Races candidates on a device over TVM RPC, whatever happens to the candidates, the device or the connection."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm import rpc

from hawqtvm.console import note
from hawqtvm.errors import BadInput, CheckFailed, HawqtvmError
from hawqtvm.tune.devices import Local, Tracker
from hawqtvm.tune.kernel import Arguments, Built
from hawqtvm.tune.measure import Rounds, race, turn

LOST = 8  # sessions that end before one is to blame until all are given up
STALL = 60.0  # seconds of a turn after which it hangs
POLL = 0.5  # seconds between looks at a race
BIG_CORES = 1  # TVM's AffinityMode kBig


@dataclass(frozen=True)
class Library:
    """A candidate and its shared library on disk."""

    built: Built
    path: Path


class Lost(Exception):
    """A session ended early.  ``index``: the candidate whose turn it was, None before the first."""

    def __init__(self, index: int | None, reason: str):
        super().__init__(reason)
        self.index = index


def measure(devices: Local | Tracker, libraries: Sequence[Library]) -> list[Rounds | Exception]:
    """Microseconds of each candidate's calls, a tuple a round, or why it does not run; all are of one workload.

    All times are of one session on one device.  When that ends early the race starts anew in another; a candidate in
    whose turns that happened ``devices.faults`` times takes no further part.  Raises BadInput where the device has too
    few threads, CheckFailed where sessions keep ending.
    """
    faults, lost, failed = Counter(), 0, {}
    while len(failed) < len(libraries):
        entrants = {index: library for index, library in enumerate(libraries) if index not in failed}
        try:
            results = Attempt(devices, entrants).run()
        except Lost as loss:
            devices.abandon()
            faults[loss.index] += 1
            if loss.index is not None and faults[loss.index] >= devices.faults:
                failed[loss.index], lost = RuntimeError(f"the device's session ended: {loss}"), 0
                continue
            lost += 1
            if lost >= LOST:
                raise CheckFailed(f"the devices' sessions keep ending ({loss}): check the devices") from None
            note(f"a session was lost ({loss}): its race starts anew")
        else:
            return [(results | failed)[index] for index in range(len(libraries))]
    return [failed[index] for index in range(len(libraries))]


class Attempt:
    """A race in one session, run by a thread of its own, since a call to a machine that vanished may never return."""

    def __init__(self, devices: Local | Tracker, entrants: dict[int, Library]):
        self.devices, self.entrants = devices, entrants
        self.results: dict[int, Rounds | Exception] = {}
        self.turn: int | None = None
        self.began: float | None = None  # the turn; None before the session
        self.error: BaseException | None = None

    def run(self) -> dict[int, Rounds | Exception]:
        """The results; Lost when the session ended early or a turn hung."""
        thread = threading.Thread(target=self._work, daemon=True)
        started = time.monotonic()
        thread.start()
        while thread.is_alive():
            thread.join(POLL)
            if self.began is None:
                self.devices.check(time.monotonic() - started)
            elif thread.is_alive() and time.monotonic() - self.began > STALL:
                raise Lost(self.turn, f"nothing came back for {STALL:.0f} s")
        if self.error is not None:
            raise self.error
        return self.results

    def _work(self) -> None:
        try:
            self._race(self.devices.connect())
        except HawqtvmError as error:
            self.error = error
        except Exception as error:  # whatever TVM raises when a connection ends
            self.error = Lost(self.turn, _first_line(error))

    def _race(self, remote: rpc.RPCSession) -> None:
        self._begin(None)
        _configure(remote, self.devices.threads)
        values = Arguments(next(iter(self.entrants.values())).built.candidate.workload, remote.cpu())
        turns = {}
        for index, library in self.entrants.items():
            self._begin(index)
            try:
                remote.upload(str(library.path))
                timed = turn(library.built, remote.load_module(library.path.name), values)
                timed()
            except Exception as error:  # the candidate's, if the session still answers
                remote.get_function("runtime.NumThreads")()
                self.results[index] = RuntimeError(_first_line(error))
            else:
                turns[index] = self._watched(index, timed)
        if turns:
            self.results |= race(turns)

    def _watched(self, index: int, timed):
        def watched():
            self._begin(index)
            return timed()

        return watched

    def _begin(self, index: int | None) -> None:
        self.turn, self.began = index, time.monotonic()


def _configure(remote: rpc.RPCSession, threads: int) -> None:
    remote.get_function("runtime.config_threadpool")(BIG_CORES, threads)
    has = remote.get_function("runtime.NumThreads")()
    if has != threads:
        raise BadInput(f"a device uses {has} threads at most: start its server with TVM_NUM_THREADS={threads}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
