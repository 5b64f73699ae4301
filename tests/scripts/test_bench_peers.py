"""The peer benchmark without peers: statistics, tables, options, the worker's protocol, and the environment script."""

import mmap
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.peers import __main__ as cli  # noqa: E402
from scripts.peers import build as builder  # noqa: E402
from scripts.peers.engines import IMPORTERS, OPENERS  # noqa: E402
from scripts.peers.measure import cold_starts, measure_case  # noqa: E402
from scripts.peers.memory import disk_size, memory_case  # noqa: E402
from scripts.peers.proc import held  # noqa: E402
from scripts.peers.process import Process, SystemFailed  # noqa: E402
from scripts.peers.stats import ratio_by_round, summary  # noqa: E402
from scripts.peers.systems import SYSTEMS, Build, Case  # noqa: E402
from scripts.peers.table import markdown  # noqa: E402
from scripts.peers.worker import Worker  # noqa: E402


@pytest.fixture(autouse=True)
def workers_find_the_tree(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_summary_of_known_samples():
    assert summary([4.0, 1.0, 3.0, 2.0, 5.0]) == {"min": 1.0, "median": 3.0, "iqr": 2.0, "count": 5}
    assert summary([7.0]) == {"min": 7.0, "median": 7.0, "iqr": 0.0, "count": 1}


def test_ratios_are_taken_in_each_round():
    # a load that doubles both systems in one round leaves the ratio alone
    ours = [[10.0, 10.0, 11.0], [20.0, 20.0, 22.0], [10.0, 9.0, 10.0]]
    theirs = [[15.0, 15.0, 40.0], [30.0, 30.0, 30.0], [15.0, 15.0, 15.0]]
    assert ratio_by_round(theirs, ours) == 1.5
    assert ratio_by_round(ours, ours) == 1.0


def test_rounds_that_one_side_lacks_do_not_count():
    assert ratio_by_round([[2.0], [9.0]], [[1.0]]) == 2.0
    assert ratio_by_round([[2.0]], []) is None


def report(**changes):
    return {
        "date": "2025-01-01T00:00:00+00:00",
        "machine": {"cpu": "Some CPU", "cores": 2, "isa": ["avx2"]},
        "versions": dict.fromkeys(cli.PACKAGES, "1.0"),
        "systems": ["hawqtvm-int8", "onnxruntime", "openvino"],
        "cases": [
            {
                "model": "resnet18",
                "batch": 1,
                "threads": 2,
                "systems": {
                    "hawqtvm-int8": {"rounds": [[10.0, 10.0], [20.0, 20.0]], "error": 0.031},
                    "onnxruntime": {"rounds": [[15.0, 15.0], [30.0, 30.0]], "error": 0.04},
                    "openvino": {"rounds": [[5.0]], "failed": "died | of\nthirst", "error": 0.1},
                },
            }
        ],
        "cold_start": None,
        "memory": [],
        **changes,
    }


def test_the_table_states_medians_ratios_and_failures():
    lines = markdown(report()).splitlines()
    assert "| resnet18 | 1 | 2 | hawqtvm-int8 | 15.00 | 10.00 | 10.00 | 1.00 | 3.1% |" in lines
    assert "| resnet18 | 1 | 2 | onnxruntime | 22.50 | 15.00 | 15.00 | 1.50 | 4.0% |" in lines
    assert "| resnet18 | 1 | 2 | openvino | failed: died / of thirst | – | – | – | – |" in lines
    rows = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert any("onnxruntime 1.0" in line for line in lines)


def test_without_the_baseline_there_is_no_ratio():
    found = report()
    del found["cases"][0]["systems"]["hawqtvm-int8"]
    assert "| onnxruntime | 22.50 | 15.00 | 15.00 | – | 4.0% |" in markdown(found)


def test_the_cold_start_table():
    cold = {
        "model": "resnet18",
        "batch": 1,
        "threads": 1,
        "systems": {"hawqtvm-int8": {"ms": [300.0, 310.0, 290.0]}, "openvino": {"ms": [], "failed": "no"}},
    }
    text = markdown(report(cases=[], cold_start=cold))
    assert "| hawqtvm-int8 | 300 | 290 | 3 |" in text
    assert "| openvino | failed: no | – | – |" in text
    assert "IQR" not in text


def stages(*megabytes):
    """A worker's answer, from (rss, private_dirty, peak) of each stage."""
    names = ("rss", "private_dirty", "peak")
    bytes_of = [dict(zip(names, (1e6 * m for m in stage), strict=True)) for stage in megabytes]
    return dict(zip(("imported", "loaded", "ran"), bytes_of, strict=True))


def test_the_memory_table():
    runs = [stages((70, 30, 71), (100, 55, 104), (110, 66, 120 + extra)) for extra in (0, 1, 50)]
    disk = {"run": 26.5e6, "weights": None, "all": 90e6}
    case = {
        "model": "resnet50",
        "batch": 8,
        "threads": 1,
        "systems": {"hawqtvm-int8": {"runs": runs, "disk": disk}, "openvino": {"runs": [], "failed": "no"}},
    }
    lines = markdown(report(cases=[], memory=[case])).splitlines()
    said = "| resnet50 | 8 | 1 | hawqtvm-int8 | 121.0 | 70.0 | 30.0 | 10.0 | 66.0 | 36.0 | 26.5 | – | 90.0 |"
    assert said in lines
    assert any(line.startswith("| resnet50 | 8 | 1 | openvino | failed: no |") for line in lines)
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_what_a_network_takes_on_disk(tmp_path):
    artifact = tmp_path / "artifact"
    (artifact / "reference").mkdir(parents=True)
    (artifact / "model.so").write_bytes(bytes(1000))
    (artifact / "reference" / "layers").write_bytes(bytes(5000))
    manifest = '{"library": "model.so", "size": {"weights": 300}}'
    (artifact / "manifest.json").write_text(manifest)
    run = 1000 + len(manifest)
    assert disk_size("hawqtvm", artifact) == {"run": run, "weights": 300, "all": run + 5000}
    for name, size in (("a.onnx", 40), ("a.xml", 50), ("a.bin", 60)):
        (tmp_path / name).write_bytes(bytes(size))
    assert disk_size("onnxruntime", tmp_path / "a.onnx") == {"run": 40, "weights": None, "all": 40}
    assert disk_size("openvino", tmp_path / "a.xml") == {"run": 110, "weights": 60, "all": 110}


def test_a_worker_tells_the_memory_of_its_stages(monkeypatch):
    size, calls, blocks = 32 << 20, [], []

    def hold():
        blocks.append(mmap.mmap(-1, size))  # not from the heap, which may hold freed memory that counts already
        np.frombuffer(blocks[-1], np.uint8)[:] = 1

    def infer(images):
        calls.append(images.shape)
        if len(calls) == 1:
            hold()

    monkeypatch.setitem(IMPORTERS, "fake", hold)
    monkeypatch.setitem(OPENERS, "fake", lambda *_: hold() or infer)
    before = held()["rss"]
    command = {"engine": "fake", "path": "", "shape": [1, 1, 8, 8], "batch": 1, "threads": 1, "count": 3}
    answer = Worker().memory(command)
    assert calls == [(1, 1, 8, 8)] * 3
    for stage, number in (("imported", 1), ("loaded", 2), ("ran", 3)):
        assert answer[stage]["rss"] - before == pytest.approx(number * size, rel=0.1)
        assert answer[stage]["peak"] >= answer[stage]["rss"] >= answer[stage]["private_dirty"] >= number * size


def test_memory_of_systems_that_fail(tmp_path):
    case, build = Case("resnet18", 1, 1), Build(tmp_path, "x")
    network = build.network("onnxruntime", case)
    network.parent.mkdir(parents=True)
    network.write_bytes(b"no network")
    why = {"onnxruntime": "", "openvino": "not built: why"}
    found = memory_case(case, why, build, (1, 8, 8), 1, lambda text: None)
    assert found["systems"]["openvino"] == {"runs": [], "failed": "not built: why"}
    assert found["systems"]["onnxruntime"]["failed"]


def test_each_mode_has_its_defaults(tmp_path):
    usual, memory = cli._parse(["--out", str(tmp_path)]), cli._parse(["--memory", "--out", str(tmp_path)])
    assert usual.models == ["resnet18", "resnet50"] and usual.threads == [1, 2] and usual.systems == list(SYSTEMS)
    assert memory.models == ["resnet50"] and memory.threads == [1] and memory.batches == [1, 8]
    assert "hawqtvm-int8-int16" not in memory.systems and {"onnxruntime", "openvino"} < set(memory.systems)
    asked = cli._parse(["--memory", "--models", "resnet18", "--threads", "2", "--out", str(tmp_path)])
    assert asked.models == ["resnet18"] and asked.threads == [2]


def test_options_refuse_what_they_do_not_know(capsys):
    for wrong in (
        ["--systems", "tflite"],
        ["--batches", "0"],
        ["--threads", "1,x"],
        ["--models", "vgg"],
        ["--rounds", "0"],
        ["--memory", "--cold-start"],
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main(wrong)
        assert caught.value.code == 2
        assert wrong[0] in capsys.readouterr().err


def test_a_build_folder_follows_what_it_depends_on(tmp_path, monkeypatch):
    first = cli.find_build(tmp_path)
    assert cli.find_build(tmp_path) == first
    monkeypatch.setattr(cli, "version", lambda package: "2" if package == "openvino" else "1")
    second = cli.find_build(tmp_path)
    monkeypatch.setattr(cli, "version", lambda package: "2" if package == "apache-tvm" else "1")
    third = cli.find_build(tmp_path)
    assert len({first.folder, second.folder, third.folder}) == 3
    assert second.sources != third.sources


def test_other_tuning_logs_are_another_build_of_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    log = tmp_path / "tuning_logs/device/avx2-1.jsonl"
    for path in (log, tmp_path / "hawqtvm/data.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    monkeypatch.setattr(cli, "_fingerprint", lambda files, facts: sorted(map(str, files)))
    assert str(log) in cli.find_build(tmp_path).sources


def test_a_worker_reports_failures_and_stays_alive(tmp_path):
    with Process(tmp_path / "log") as worker:
        for _ in range(2):
            with pytest.raises(SystemFailed, match="KeyError"):
                worker.ask("first", engine="nothing", path="", shape=[1, 1, 8, 8], batch=1, threads=1)


def test_a_worker_that_dies_or_hangs_is_a_failure(tmp_path):
    with Process(tmp_path / "log") as worker:
        worker._process.kill()
        with pytest.raises(SystemFailed, match="ended with code"):
            worker.ask("time", count=1)
    with Process(tmp_path / "log", timeout_s=0.01) as worker, pytest.raises(SystemFailed, match="no answer"):
        worker.ask("time", count=1)


def test_systems_that_fail_leave_a_reason(tmp_path):
    case = Case("resnet18", 1, 1)
    build = Build(tmp_path, "x")
    found = measure_case(case, {"onnxruntime": "", "openvino": "not built: why"}, build, 1, lambda text: None)
    assert found["systems"]["openvino"] == {"rounds": [], "failed": "not built: why"}
    assert "check.npz" in found["systems"]["onnxruntime"]["failed"]
    cold = cold_starts(case, {"openvino": "why"}, build, (3, 8, 8), 1, lambda text: None)
    assert cold["systems"]["openvino"] == {"ms": [], "failed": "why"}


def test_ours_are_built_once_for_each_case_and_old_ones_go(tmp_path, monkeypatch):
    made = []

    def deploy(quantized, *, out, **settings):
        made.append((quantized, settings))
        out.mkdir()

    def quantize(module, batches, name):
        assert all(batch.shape == (1, 1, 8, 8) and batch.dtype == np.float32 for batch in batches)
        return f"quantized {name}"

    monkeypatch.setitem(sys.modules, "hawqtvm.deploy", types.SimpleNamespace(deploy=deploy))
    monkeypatch.setitem(sys.modules, "hawqtvm.quantize", types.SimpleNamespace(quantize=quantize))
    job = {
        "engine": "hawqtvm",
        "model": "digits",
        "folder": str(tmp_path),
        "sources": "new",
        "cases": [["hawqtvm-int8", 1, 1], ["hawqtvm-int4", 8, 2]],
    }
    old = tmp_path / "digits" / "hawqtvm-int8-b1-t1-old"
    old.mkdir(parents=True)
    for _ in range(2):
        builder.build_hawqtvm(job)
    common = {"measure": False, "verify": False, "residual": "uint8"}
    assert made == [
        ("quantized digits", {"bits": 8, "batch": 1, "threads": 1, **common}),
        ("quantized digits", {"bits": 4, "batch": 8, "threads": 2, **common}),
    ]
    assert sorted(path.name for path in (tmp_path / "digits").iterdir()) == [
        "hawqtvm-int4-b8-t2-new",
        "hawqtvm-int8-b1-t1-new",
    ]


def test_the_worker_does_not_import_torch():
    code = "import sys, scripts.peers.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_system_has_an_engine_and_a_builder():
    engines = {system.engine for system in SYSTEMS.values()}
    assert engines == set(OPENERS) == set(IMPORTERS)
    assert engines | {"onnx"} == set(builder.BUILDERS)


FAKE_PYTHON = """#!/usr/bin/env bash
# stands in for python: makes "environments" that hold itself, and writes down what pip is asked for
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") echo "$*" >>"$PIP_LOG"; exit "${PIP_RESULT:-0}" ;;
esac
"""


def test_the_environment_is_installed_once_for_a_pyproject(tmp_path):
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "_env.sh", tmp_path / "scripts")
    project = tmp_path / "pyproject.toml"
    project.write_text("one")
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    log = tmp_path / "pip.log"
    environment = {**os.environ, "PYTHON": str(python), "PIP_LOG": str(log)}
    environment.pop("HAWQTVM_VENV", None)

    def ensure(extras="peers", **more):
        return subprocess.run(
            ["bash", "-euc", f"source scripts/_env.sh; ensure_env {extras}; echo $PY"],
            cwd=tmp_path,
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=False,
        )

    def installs():
        return len(log.read_text().splitlines())

    assert ensure(PIP_RESULT="1").returncode == 2
    first = ensure()
    assert first.stdout.strip() == str(tmp_path / ".venv/bin/python")
    assert log.read_text().splitlines()[-1].endswith(f"-e {tmp_path}[peers]")
    assert installs() == 2
    assert ensure().returncode == 0
    assert installs() == 2
    assert ensure("test,peers").returncode == 0
    assert installs() == 3
    assert ensure("''").returncode == 0
    assert log.read_text().splitlines()[-1].endswith(f"-e {tmp_path}")
    assert installs() == 4
    project.write_text("two")
    assert ensure().returncode == 0
    assert installs() == 5
