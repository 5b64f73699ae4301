"""A bundle on a machine with a GPU, for which a stand-in for its driver stands, and the emulator for its kernels."""

import ast
import json
import os
import stat
import sys
from pathlib import Path

import pytest

import hawqtvm.runner
from hawqtvm.runner import attempt
from hawqtvm.runner.bundle import Bundle
from hawqtvm.runner.timing import CALLS, ROUNDS, race
from schedules.tuning_log import GpuDevice, read
from tests.bundle import standin
from tests.bundle.workloads import FEW, WORKLOADS

T4 = GpuDevice("Tesla T4", 40)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def cubins(bundle: Path, number: int) -> list[str]:
    return [candidate["cubin"] for candidate in Bundle(str(bundle)).workloads[number]["candidates"]]


@pytest.fixture(scope="module")
def done(driver, small, tmp_path_factory):
    """The results of the small bundle, how it ended, and the stand-in's log."""
    folder = tmp_path_factory.mktemp("done")
    out, log = folder / "results.jsonl", folder / "log"
    return out, standin.run(driver, small, "--out", out, STANDIN_LOG=str(log)), log.read_text().splitlines()


def test_every_kernel_makes_what_it_must(done):
    out, ended, _ = done
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "" and "failed" not in ended.stderr
    assert f"{len(WORKLOADS)} workloads are in {out}; candidates that are wrong or do not run: 0" in ended.stderr
    assert all(f"{at}/{len(WORKLOADS)} " in ended.stderr for at in range(1, len(WORKLOADS) + 1))


def test_results_are_lines_of_a_tuning_log(done):
    out, *_ = done
    records = list(read(out))
    assert len(records) == 2 * len(WORKLOADS) == len(lines(out))
    assert {(r.device, r.target, r.threads, r.error) for r in records} == {(T4, "nvidia/nvidia-t4", 1, None)}
    assert all(len(r.rounds) == ROUNDS and {len(calls) for calls in r.rounds} == {CALLS} for r in records)
    assert {r.median for r in records} == {r.least for r in records} == {10.0}, "the stand-in's clock"
    assert len({r.measured for r in records}) == len(WORKLOADS), "candidates of a workload share a race"
    assert {line["driver"] for line in lines(out)} == {"12.4"}


def test_buffers_rotate_and_caches_are_swept_before_each_call(done):
    *_, log = done
    timed = [line.split() for line in log if line.startswith("timed")]
    places = {words[3] for words in timed[:8]}
    assert len(places) == 8, "eight launches in a row read eight copies of the input"
    starts = [at for at, line in enumerate(log) if line.startswith("timed") and log[at - 1].startswith("fill")]
    assert all(int(log[at - 1].split()[1]) >= 64 << 20 for at in starts)
    assert len(starts) == 2 * len(WORKLOADS) * (ROUNDS + 1) * CALLS


def test_nothing_is_measured_twice_and_a_torn_line_is_dropped(driver, small, done, tmp_path):
    whole, *_ = done
    out, log = tmp_path / "results.jsonl", tmp_path / "log"
    out.write_text(whole.read_text()[:-40])
    ended = standin.run(driver, small, "--out", out, STANDIN_LOG=str(log))
    assert ended.returncode == 0, ended.stderr
    assert len(list(read(out))) == len(list(read(whole)))
    assert len(lines(out)) == len(lines(whole)) + 1, "the last workload anew, beside its first line"
    launched = {line.split()[1] for line in log.read_text().splitlines() if not line.startswith("fill")}
    assert len(launched) == 1
    assert standin.run(driver, small, "--out", out, STANDIN_LOG=str(tmp_path / "none")).returncode == 0
    assert not (tmp_path / "none").exists()


def test_the_fastest_is_told_by_the_clock(driver, few, tmp_path):
    first, second = cubins(few, 0)
    bundle = standin.changed(few, tmp_path / "b.pyz", {first: ("right", 20.5), second: ("right", 7.25)})
    ended = standin.run(driver, bundle, "--out", tmp_path / "out", STANDIN_LATE="3")
    assert ended.returncode == 0, ended.stderr
    assert [line["median_us"] for line in lines(tmp_path / "out")[:2]] == [20.5, 7.25]
    assert "20.50 us by default,       7.25 us best of 2" in ended.stderr


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (standin.WRONG, "output 0 differs from the exact one"),
        (standin.SILENT, "output 0 was not written"),
        (standin.FAULTS, "cuCtxSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS"),
        (standin.FAULTS_LATE, "CUDA_ERROR_ILLEGAL_ADDRESS"),
    ],
)
def test_what_is_wrong_is_recorded_and_all_else_measured(driver, few, tmp_path, mode, reason):
    bad, good = cubins(few, 1)
    bundle = standin.changed(few, tmp_path / "b.pyz", {bad: (mode, 1.0)})
    ended = standin.run(driver, bundle, "--out", tmp_path / "out")
    assert ended.returncode == 1, ended.stderr
    records = list(read(tmp_path / "out"))
    (failed,) = (record for record in records if record.error)
    assert reason in failed.error and not failed.rounds
    assert f"failed: {failed.error}" in ended.stderr and "do not run: 1" in ended.stderr
    assert len(records) == 2 * FEW and all(record.rounds for record in records if record is not failed)
    assert standin.run(driver, bundle, "--out", tmp_path / "out").returncode == 1, "found earlier, still wrong"


def test_a_second_output_is_checked_too(driver, few, tmp_path):
    """The first workload has two, and here another is expected of the second."""
    about = Bundle(str(few)).about
    about["workloads"][0]["outputs"][1]["sha256"] = "0" * 64
    bundle = standin.replaced(few, tmp_path / "b.pyz", {"bundle.json": json.dumps(about).encode()})
    assert standin.run(driver, bundle, "--out", tmp_path / "out").returncode == 1
    errors = [line["error"] for line in lines(tmp_path / "out")]
    assert errors[:2] == ["output 1 differs from the exact one"] * 2 and not any(errors[2:])


def test_a_cubin_that_does_not_load_is_the_candidates_error(driver, few, tmp_path):
    bad, _ = cubins(few, 1)
    bundle = standin.replaced(few, tmp_path / "b.pyz", {f"blobs/{bad}": b"garbage"})
    assert standin.run(driver, bundle, "--out", tmp_path / "out").returncode == 1
    failed = [line["error"] for line in lines(tmp_path / "out") if line["error"]]
    assert failed == ["cuModuleLoadData: CUDA_ERROR_INVALID_IMAGE"]


def test_a_kernel_that_never_ends_is_ended(driver, few, tmp_path, monkeypatch):
    bad, _ = cubins(few, 1)
    bundle = standin.changed(few, tmp_path / "b.pyz", {bad: (standin.HANGS, 1.0)})
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    found = attempt.measured(str(bundle), 1, 0, timed=False, silence=3)
    assert found.errors == {0: "nothing came back for 3 s"}


def test_a_worker_that_cannot_begin_ends_all(driver, few, tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("STANDIN_INIT", "100")
    with pytest.raises(attempt.Broken, match="cuInit: CUDA_ERROR_NO_DEVICE"):
        attempt.measured(str(few), 0, 0)


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {"STANDIN_INIT": "100"}, "cuInit: CUDA_ERROR_NO_DEVICE"),
        ((), {"STANDIN_DEVICES": ""}, "a device of sm_75 is needed, this machine has none"),
        ((), {"STANDIN_DEVICES": "NVIDIA L4:8:9"}, "of sm_75 is needed, this machine has 0: NVIDIA L4 (sm_89)"),
        (("--device", 1), {"STANDIN_DEVICES": "Tesla T4:7:5,NVIDIA L4:8:9"}, "device 1 of sm_75 is needed"),
        (("--device", 2), {}, "device 2 of sm_75 is needed"),
        (("--out", "absent/folder/out"), {}, "cannot write absent/folder/out: No such file or directory"),
        (("--out", __file__), {}, "test_bundle_run.py holds something else than results"),
        (("--sanitize",), {"PATH": "/nowhere"}, "no compute-sanitizer on PATH"),
    ],
)
def test_bad_input_is_one_line(driver, few, tmp_path, monkeypatch, arguments, environment, message):
    monkeypatch.chdir(tmp_path)
    before = Path(__file__).read_bytes()
    ended = standin.run(driver, few, *(("--out", "out") if "--out" not in arguments else ()), *arguments, **environment)
    assert ended.returncode == 2 and message in ended.stderr
    (error,) = (line for line in ended.stderr.splitlines() if line.startswith("error: "))
    assert message in error and "Traceback" not in ended.stderr
    assert Path(__file__).read_bytes() == before


def test_without_a_driver(few, tmp_path):
    (tmp_path / "libcuda.so.1").write_text("no library")
    ended = standin.run(tmp_path, few, "--out", tmp_path / "out")
    assert ended.returncode == 2 and ended.stderr.startswith("error: no NVIDIA driver on this machine")
    assert not (tmp_path / "out").exists()


def test_the_device_is_found_among_others(driver, small, done, tmp_path):
    """Nothing is left to measure, so only the device is asked for."""
    out, *_ = done
    (tmp_path / "out").write_text(out.read_text())
    devices = "NVIDIA L4:8:9,Tesla T4:7:5"
    ended = standin.run(driver, small, "--out", tmp_path / "out", STANDIN_DEVICES=devices)
    assert ended.returncode == 0 and "on Tesla T4" in ended.stderr


@pytest.mark.parametrize("found", ["", "racecheck"])
def test_compute_sanitizer_runs_the_checks(driver, few, tmp_path, found):
    program = tmp_path / "bin" / "compute-sanitizer"
    program.parent.mkdir()
    program.write_text(
        f"""#!{sys.executable}
import subprocess, sys
tool, code, log = sys.argv[2], int(sys.argv[4]), sys.argv[6]
open(log, "w").write("========= what was found")
ended = subprocess.run(sys.argv[7:]).returncode
sys.exit(code if tool == {found!r} else ended)
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    log = tmp_path / "log"
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    ended = standin.run(driver, few, "--sanitize", PATH=path, STANDIN_LOG=str(log))
    assert ended.returncode == int(bool(found)), ended.stderr
    assert ("memcheck, racecheck clean" in ended.stderr) == (not found)
    assert ("========= what was found" in ended.stderr) == bool(found)
    assert "timed" not in log.read_text()


def test_a_race_takes_turns_in_changing_order():
    turns, order = {}, []
    for index in range(5):
        turns[index] = lambda index=index: order.append(index) or [float(index)]
    assert race(turns, rounds=3, warm_up=1) == {index: [[float(index)]] * 3 for index in range(5)}
    rounds = [order[at : at + 5] for at in range(0, 20, 5)]
    assert all(sorted(each) == list(range(5)) for each in rounds) and len(set(map(tuple, rounds))) > 1


def test_the_runner_is_plain_old_python():
    """It imports nothing but the standard library, and what Python 3.9 does not parse is not in it."""
    for path in Path(hawqtvm.runner.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert all(name.split(".")[0] in sys.stdlib_module_names for name in names), path
