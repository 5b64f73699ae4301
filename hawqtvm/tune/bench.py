"""Candidates compiled in parallel, then measured while nothing compiles."""

import itertools
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tvm.support import cc

from hawqtvm.errors import BadInput
from hawqtvm.tune.devices import Local, Tracker
from hawqtvm.tune.kernel import build, parameters
from hawqtvm.tune.measure import Rounds
from hawqtvm.tune.runner import Library, measure
from schedules.dispatch import Choice
from schedules.target import CpuTarget


class Bench:
    """Compiles for a target, with as many threads as this process has CPUs, and measures on devices; a context.

    BadInput where no C compiler is found.
    """

    def __init__(self, target: CpuTarget, devices: Local | Tracker):
        if cc.get_cc() is None:
            raise BadInput("no C compiler found, with which TVM links libraries: install gcc or clang, or set CXX")
        self.target, self.devices = target, devices
        self._numbers = itertools.count()

    def __enter__(self) -> "Bench":
        self._folder = tempfile.TemporaryDirectory(prefix="hawqtvm-tune-")
        # LLVM and the linker leave Python's lock to the others
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="hawqtvm-build")
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(cancel_futures=True)
        self.devices.abandon()
        self._folder.cleanup()

    def measure(self, candidates: Sequence[Choice]) -> list[Rounds | Exception]:
        """Microseconds of each candidate's calls, a tuple a round, or why it does not build or run.

        All candidates are of one workload.  Raises as :func:`hawqtvm.tune.runner.measure`.
        """
        results = self.build(candidates)
        places = [place for place, made in enumerate(results) if isinstance(made, Library)]
        libraries = [results[place] for place in places]
        for place, result in zip(places, measure(self.devices, libraries), strict=True):
            results[place] = result
        for library in libraries:
            library.path.unlink()
        return results

    def build(self, candidates: Sequence[Choice]) -> list[Library | Exception]:
        """The candidates' libraries, once all are made, or why one does not compile."""
        values = parameters(candidates[0].workload)

        def one(candidate: Choice) -> Library | Exception:
            try:
                built = build(candidate, self.target, values)
                path = Path(self._folder.name) / f"{next(self._numbers)}.so"
                built.module.export_library(str(path))
            except Exception as error:  # whatever a schedule, the compiler or the linker may raise
                return error
            return Library(built, path)

        return list(self._pool.map(one, candidates))


def side_by_side(work: Callable, items: Iterable, count: int) -> None:
    """``work(item)`` for every item, ``count`` at a time; after an error no more are begun, and it is raised."""
    left, errors = queue.SimpleQueue(), []
    for item in items:
        left.put(item)

    def worker() -> None:
        while not errors:
            try:
                work(left.get_nowait())
            except queue.Empty:
                return
            except BaseException as error:  # raised again below
                errors.append(error)

    # daemons, since a worker may wait for a machine that vanished
    workers = [threading.Thread(target=worker, daemon=True) for _ in range(count)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    if errors:
        raise errors[0]
