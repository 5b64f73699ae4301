"""Times candidates against one another, on a machine that others use too.

All candidates of a workload take turns, call by call, so that what slows the machine slows them alike.  Before each
call a sweep passes ``SWEPT`` bytes through the caches of the cores at work, and then the activations: a layer finds
its weights and its code as it does in a network, where all other layers ran since, and what it reads as the layer
before has just left it.  After each pass the slower half leaves, and whoever is clearly
slower than the best.
"""

import random
from collections.abc import Callable, Sequence
from functools import cache, partial
from time import perf_counter

import numpy as np
import tvm
from tvm import te

from hawqtvm.runtime import threads as cpu_threads
from hawqtvm.tune.kernel import Arguments, compiled
from schedules.dispatch import Choice
from schedules.target import CpuTarget
from schedules.tuning_log import median

SWEPT = 24 * 2**20
CALLS = 3  # of each candidate in a round
PASSES = (5, 8, 16)  # rounds
CLEARLY = 1.15  # times the best's
SEED = 0

Rounds = list[tuple[float, ...]]


def measure(candidates: Sequence[Choice], target: CpuTarget, threads: int) -> list[Rounds | Exception]:
    """Microseconds of each candidate's calls, a tuple a round, or why it does not build or run.

    All candidates are of one workload; those that stayed longer have more rounds.
    """
    return cpu_threads.run_with(threads, lambda: _measure(candidates, target, threads))


def _measure(candidates: Sequence[Choice], target: CpuTarget, threads: int) -> list[Rounds | Exception]:
    arguments = Arguments(candidates[0].workload)
    runs: dict[int, Callable[[], None]] = {}
    results: list[Rounds | Exception] = []
    for index, candidate in enumerate(candidates):
        try:
            run = compiled(candidate, target, arguments)
            run()
        except Exception as error:  # whatever a schedule or the compiler may raise
            results.append(error)
        else:
            runs[index] = run
            results.append([])
    sweep = sweeper(target, threads)

    def settle():
        sweep()
        arguments.touch()

    _race(runs, results, settle)
    return results


def _race(runs: dict[int, Callable[[], None]], results: list, settle: Callable[[], None]) -> None:
    """Runs those that are left in rounds of turns, each after ``settle``, and adds its times to its results."""
    turns = random.Random(SEED)
    left = list(runs)
    for rounds in PASSES:
        for _ in range(rounds):
            times = {index: [] for index in left}
            for _ in range(CALLS):
                for index in turns.sample(left, len(left)):
                    settle()
                    started = perf_counter()
                    runs[index]()
                    times[index].append(round(1e6 * (perf_counter() - started), 2))
            for index in left:
                results[index].append(tuple(times[index]))
        ranking = sorted((median(results[index]), index) for index in left)
        left = [index for us, index in ranking[: -(-len(left) // 2)] if us <= CLEARLY * ranking[0][0]]


@cache
def sweeper(target: CpuTarget, threads: int) -> Callable[[], None]:
    """A function that reads ``SWEPT`` bytes, shared among the threads."""
    data = te.placeholder((threads, SWEPT // threads // 4), "int32", name="data")
    k = te.reduce_axis((0, data.shape[1]), "k")
    total = te.compute((threads,), lambda i: te.sum(data[i, k], k), name="total")
    schedule = tvm.s_tir.Schedule(te.create_prim_func([data, total]))
    schedule.parallel(schedule.get_loops(schedule.get_sblock("total"))[0])
    main = tvm.compile(schedule.mod["main"].with_attr("tirx.noalias", True), target=target.tvm)["main"]
    tensors = np.ones([int(extent) for extent in data.shape], "int32"), np.zeros(threads, "int32")
    return partial(main, *map(tvm.runtime.tensor, tensors))
