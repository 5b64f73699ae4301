"""How many CPU threads a call uses.

TVM has one pool of workers for each calling thread, as large as the process's limit when the pool was made; of these a
call uses as many as configured.  Left alone, TVM takes half the CPUs and pins the caller to CPU 0, even where the
process was confined to others.  So the pool is configured from here: as large as the CPUs this process may use, pinned
to none of them.  That limit holds for the whole process, for other users of TVM too.  TVM_NUM_THREADS is not read.
"""

import functools
import os
import sys
import threading
from pathlib import Path

from hawqtvm.errors import BadInput
from hawqtvm.runtime.engine import ffi

SHARE_ALL_CPUS = -3  # TVM's AffinityMode kSpecifyThreadShareAllCore

_this_thread = threading.local()


def _allowed_cpus() -> list[str]:
    """CPUs this process may use: those of any of its threads, for TVM may have pinned the main one before."""
    cpus = os.sched_getaffinity(0)
    for task in Path("/proc/self/task").iterdir():
        try:
            cpus |= os.sched_getaffinity(int(task.name))
        except ProcessLookupError:  # a thread that ended meanwhile
            continue
    return [str(cpu) for cpu in sorted(cpus)]


ALLOWED_CPUS = _allowed_cpus()


def choose(requested: int | None, default: int) -> int:
    """The number of threads to use: as requested, or ``default`` where this process has that many CPUs."""
    if requested is None:
        return min(default, len(ALLOWED_CPUS))
    if isinstance(requested, bool) or not isinstance(requested, int) or not 1 <= requested <= len(ALLOWED_CPUS):
        raise BadInput(
            f"threads={requested!r}: give a number from 1 to {len(ALLOWED_CPUS)}, the CPUs this process may use"
        )
    return requested


def run_with(count: int, work):
    """``work()``, with ``count`` threads for every TVM kernel in it."""
    if _configure(count):
        return work()
    # this thread's pool is of no use and no one can change it; a new thread gets a new one
    return _helper().submit(lambda: _configure(count) and work()).result()


def _configure(count: int) -> bool:
    """Make kernels called from this thread use ``count`` threads.

    False when its pool cannot: made too small before by another user of TVM, or lost in a fork.
    """
    if getattr(_this_thread, "forked", False):
        return False
    used = ffi().get_global_func("runtime.NumThreads")
    if not getattr(_this_thread, "configured", False) or used() != count:
        ffi().get_global_func("runtime.config_threadpool")(SHARE_ALL_CPUS, count, ALLOWED_CPUS)
        _this_thread.configured = True
    return used() == count


@functools.cache
def _helper():
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1, thread_name_prefix="hawqtvm-runtime")


def _after_fork() -> None:
    """Threads do not come along into a forked child: not this thread's workers, for which TVM would wait for ever."""
    _this_thread.forked = "tvm_ffi" in sys.modules
    _helper.cache_clear()


os.register_at_fork(after_in_child=_after_fork)
