"""Devices of a TVM RPC tracker over loopback, one of which is killed while it measures."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest
from tvm import rpc
from tvm.rpc.tracker import Tracker as TrackerServer

from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.tune import devices as where
from hawqtvm.tune import measure as measuring
from hawqtvm.tune import runner, tune
from hawqtvm.tune.devices import Tracker
from schedules.target import find_target
from schedules.tuned import family
from schedules.tuning_log import history, log_path, this_device
from tests.nets import quantized_net

KEY = "here"


@contextmanager
def serving(port: int, count: int):
    """Plain servers under the key, each in a process group of its own."""
    command = [sys.executable, "-m", "tvm.exec.rpc_server", "--host=127.0.0.1", "--port-end=9990", f"--key={KEY}"]
    command += [f"--tracker=127.0.0.1:{port}", "--silent"]
    environment = os.environ | {"TVM_NUM_THREADS": "1", "TVM_BIND_THREADS": "0"}
    servers = [subprocess.Popen(command, env=environment, start_new_session=True) for _ in range(count)]
    client = rpc.connect_tracker("127.0.0.1", port)
    try:
        while len(client.summary()["server_info"]) < count:
            assert all(server.poll() is None for server in servers)
            time.sleep(0.1)
        yield servers
    finally:
        client.close()
        for server in servers:
            kill(server)


def kill(server: subprocess.Popen) -> None:
    """The machine is gone: the server and all that it started, at once."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def in_session(server: subprocess.Popen) -> bool:
    """Whether someone measures on it: a process for the session beside the one that listens."""
    return len(psutil.Process(server.pid).children(recursive=True)) > 1


@pytest.fixture(scope="module")
def tracker():
    server = TrackerServer("127.0.0.1", 9190, 9990, silent=True)
    yield server
    server.terminate()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(measuring, "PASSES", (2,))
    monkeypatch.setattr(measuring, "SWEPT", 4096)


def test_a_device_that_is_killed_loses_no_trial_and_leaves_no_wrong_time(quick, tracker, tmp_path, monkeypatch, capsys):
    begin, begun = runner.Attempt._begin, []

    def killing(self, index):
        begin(self, index)
        begun.append(index)
        if len(begun) >= 15 and servers[0].poll() is None and in_session(servers[0]):
            kill(servers[0])

    monkeypatch.setattr(runner.Attempt, "_begin", killing)
    with serving(tracker.port, 2) as servers:
        place = {"tracker": f"127.0.0.1:{tracker.port}", "key": KEY, "out": tmp_path}
        rows = tune(quantized_net("residual"), 8, threads=1, trials=3, **place)
        assert servers[0].poll() is not None and servers[1].poll() is None
    assert "a session was lost" in capsys.readouterr().err
    path = log_path(tmp_path, this_device(), find_target().name, 1)
    records = list(history(path))
    assert len({record.trial for record in records}) == len(records) == sum(row.tried for row in rows)
    races = {}
    for record in records:
        assert record.error is None and len(record.rounds) == 2
        assert all(0 < us < 1e6 for calls in record.rounds for us in calls)
        races.setdefault((record.measured, family(record.workload)), []).append(record)
    assert len(races) == len(rows)


@pytest.mark.slow
def test_all_devices_gone_is_told_and_what_was_measured_stays(quick, tracker, tmp_path, monkeypatch):
    monkeypatch.setattr(where, "GONE", 1.0)
    monkeypatch.setattr(where, "ASKED", 0.2)
    append, raced = runner.race, []

    def killing(turns):
        raced.append(append(turns))
        if len(raced) == 2:
            kill(servers[0])
        return raced[-1]

    monkeypatch.setattr(runner, "race", killing)
    with serving(tracker.port, 1) as servers, pytest.raises(CheckFailed, match="are gone: start one and run again"):
        place = {"tracker": f"127.0.0.1:{tracker.port}", "key": KEY, "out": tmp_path}
        tune(quantized_net("residual"), 8, threads=1, trials=2, **place)
    assert len(list(history(log_path(tmp_path, this_device(), find_target().name, 1)))) == 4


def test_a_key_without_devices_is_told(tracker):
    with pytest.raises(BadInput, match=r"no device with key t4: start python -m tvm.exec.rpc_server --tracker"):
        Tracker(f"127.0.0.1:{tracker.port}", "t4")
