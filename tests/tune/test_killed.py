"""A tuning run that is killed, for real, and the one that goes on from it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from hawqtvm.tune import measure as measuring
from hawqtvm.tune import tune
from schedules.target import find_target
from schedules.tuning_log import history, log_path, this_device
from tests.nets import quantized_net

RUN = """
from hawqtvm.tune import measure, tune
from tests.nets import quantized_net
measure.PASSES, measure.SWEPT, measure.REPEATED = (1,), 4096, 0
tune(quantized_net("residual"), 8, threads=1, trials=2, out="logs")
"""
ROOT = Path(__file__).parents[2]


def wait_for(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return held


def test_a_killed_run_leaves_no_process_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = log_path(tmp_path / "logs", this_device(), find_target().name, 1)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([sys.executable, "-c", RUN], env=environment, stderr=subprocess.DEVNULL)
    assert wait_for(lambda: path.exists() and len(path.read_bytes().splitlines()) >= 3, 300)
    started = psutil.Process(run.pid).children(recursive=True)
    assert started, "its server"
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert wait_for(lambda: not any(process.is_running() for process in started), 60)

    before = path.read_bytes()
    monkeypatch.setattr(measuring, "PASSES", (1,))
    monkeypatch.setattr(measuring, "SWEPT", 4096)
    monkeypatch.setattr(measuring, "REPEATED", 0)
    rows = tune(quantized_net("residual"), 8, threads=1, trials=2, out="logs")
    assert path.read_bytes().startswith(before)
    records = list(history(path))
    assert len({record.trial for record in records}) == len(records) == sum(row.tried for row in rows)
    assert len(before.splitlines()) < len(records) and all(row.us and not row.failed for row in rows)
