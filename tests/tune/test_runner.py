"""Races over TVM RPC on this machine: what comes back, and what a candidate that fails, crashes or hangs does."""

import os
import time
from types import SimpleNamespace

import pytest
import tvm
from tvm import rpc

from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.runtime.cpu import cpu_features
from hawqtvm.tune import measure as measuring
from hawqtvm.tune import runner
from hawqtvm.tune.bench import Bench, side_by_side
from hawqtvm.tune.devices import Local, Tracker
from hawqtvm.tune.remote_machine import remote_machine
from hawqtvm.tune.runner import Library, measure
from schedules.cpu import elementwise
from schedules.dispatch import Choice, choose
from schedules.target import find_target
from schedules.tuning_key import tuning_key
from schedules.tuning_log import this_device
from tests.tune.records import WORKLOADS

HOST = find_target()
ADD = next(w for w in WORKLOADS if type(w).__name__ == "Elementwise")
KEY = tuning_key(choose(ADD, HOST, 1).workload)


def calling(function: str):
    """The add, with a call of a C function before it."""
    kernel = elementwise.build(elementwise.Config(1), KEY, HOST)
    call = tvm.tirx.Evaluate(tvm.tirx.call_extern("int32", function, *([3600] if function == "sleep" else [])))
    return kernel.with_body(tvm.tirx.SeqStmt([call, kernel.body]))


class Broken:
    """The elementwise schedule, with configs that fail each in its own way."""

    NAME = "broken"
    constants = elementwise.constants

    @staticmethod
    def build(config, workload, target):
        if config == "build":
            raise ZeroDivisionError("no such kernel")
        if config in ("abort", "sleep"):
            return calling(config)
        return elementwise.build(elementwise.Config(1), workload, target) if config == "fine" else None


def entrants(*configs):
    return [Choice(Broken, config, KEY) for config in configs]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(measuring, "PASSES", (1,))
    monkeypatch.setattr(measuring, "REPEATED", 0)
    monkeypatch.setattr(measuring, "SWEPT", 4096)


@pytest.fixture(scope="module")
def devices():
    local = Local(1)
    yield local
    local.abandon()


def test_the_local_server_is_this_machine_with_as_many_threads(devices):
    remote = devices.connect()
    machine = remote_machine(remote)
    assert (machine.device, machine.features) == (this_device(), cpu_features())
    assert machine == devices.machine
    devices.threads = 10**6
    try:
        with pytest.raises(BadInput, match=r"threads at most: start its server with TVM_NUM_THREADS=1000000"):
            runner._configure(remote, devices.threads)
    finally:
        devices.threads = 1


@pytest.mark.parametrize("before", [None, "glibc.malloc.check=0"])
def test_the_local_server_is_asked_for_huge_pages(monkeypatch, before):
    if before is None:
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    else:
        monkeypatch.setenv("GLIBC_TUNABLES", before)
    seen = []

    def server(*_, **__):
        seen.append(os.environ["GLIBC_TUNABLES"])
        return SimpleNamespace(port=0)

    monkeypatch.setattr(rpc, "Server", server)
    monkeypatch.setattr(rpc, "connect", lambda *_, **__: None)
    Local(1).connect()
    assert seen == [":".join([*([before] if before else []), "glibc.malloc.hugetlb=1"])]
    assert os.environ.get("GLIBC_TUNABLES") == before


def test_candidates_that_do_not_compile_are_told_apart_from_the_others(quick, devices):
    with Bench(HOST, devices) as bench:
        failed, fine, worse = bench.measure(entrants("build", "fine", "compile"))
        assert isinstance(failed, ZeroDivisionError) and isinstance(worse, Exception)
        assert len(fine) == 1 and len(fine[0]) == measuring.CALLS and 0 < min(fine[0]) < 1e5
        (alone,) = bench.measure(entrants("build"))
        assert isinstance(alone, ZeroDivisionError)


def test_a_candidate_that_crashes_or_hangs_is_a_failure_and_the_others_get_their_times(quick, devices, monkeypatch):
    monkeypatch.setattr(runner, "STALL", 3.0)
    with Bench(HOST, devices) as bench:
        fine, crashed, other = bench.measure(entrants("fine", "abort", "fine"))
        assert isinstance(crashed, RuntimeError) and "session ended" in str(crashed)
        assert len(fine) == len(other) == 1
        hung, still = bench.measure(entrants("sleep", "fine"))
        assert "nothing came back for 3 s" in str(hung) and len(still) == 1


class Stub:
    """Devices whose sessions end as told: the number of the turn, or None for before the first."""

    threads, faults = 1, 2

    def __init__(self, *ends):
        self.ends, self.abandoned = list(ends), 0

    def abandon(self):
        self.abandoned += 1


class Staged(runner.Attempt):
    """An attempt without a session: everyone takes 5 us."""

    def run(self):
        if self.devices.ends and (end := self.devices.ends.pop(0)) != "fine":
            raise runner.Lost(end, "gone")
        return {index: [(5.0,)] for index in self.entrants}


@pytest.mark.parametrize(
    ("ends", "failed"),
    [((), []), ((1,), []), ((None, 0, 1, 2), []), ((1, 2, 1), [1]), ((0, 0, 2, 1, 1, 2), [0, 1, 2])],
)
def test_who_is_to_blame_when_sessions_end(monkeypatch, ends, failed):
    monkeypatch.setattr(runner, "Attempt", Staged)
    devices = Stub(*ends)
    results = measure(devices, [Library(None, None)] * 3)
    assert [index for index, result in enumerate(results) if isinstance(result, Exception)] == failed
    assert all(result == [(5.0,)] for index, result in enumerate(results) if index not in failed)
    assert devices.abandoned == len(ends)


def test_sessions_that_never_begin_are_no_candidates_fault(monkeypatch):
    monkeypatch.setattr(runner, "Attempt", Staged)
    with pytest.raises(CheckFailed, match="sessions keep ending"):
        measure(Stub(*[None] * runner.LOST), [Library(None, None)])


@pytest.mark.parametrize("count", [1, 3])
def test_work_is_done_once_side_by_side(count):
    done = []

    def work(item):
        time.sleep(0.01)
        done.append(item)

    side_by_side(work, range(10), count)
    assert sorted(done) == list(range(10))


def test_an_error_ends_the_work_and_comes_out():
    done = []

    def work(item):
        if item == 2:
            raise BadInput("no")
        done.append(item)

    with pytest.raises(BadInput, match="no"):
        side_by_side(work, range(100), 1)
    assert done == [0, 1]


@pytest.mark.parametrize("address", ["here", "here:", ":9", "here:x"])
def test_an_address_is_host_and_port(address):
    with pytest.raises(BadInput, match="give host:port"):
        Tracker(address, "t4")


def test_no_tracker_is_told():
    with pytest.raises(BadInput, match=r"no tracker at 127.0.0.1:1 \(.*\): start python -m tvm.exec.rpc_tracker"):
        Tracker("127.0.0.1:1", "t4")
