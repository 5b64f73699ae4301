"""From a bundle's results to tuning logs, and from those to builds."""

import json
from dataclasses import replace

import pytest

from hawqtvm.bundle.pack import UNPACKED, candidates, record
from hawqtvm.bundle.results import take
from hawqtvm.bundle.table import show
from hawqtvm.errors import BadInput
from hawqtvm.runtime import gpu
from hawqtvm.runtime.gpu import Gpu
from schedules.dispatch import choose
from schedules.plain_json import to_json
from schedules.target import find_target
from schedules.tuned import load_tuned
from schedules.tuning_log import GpuDevice, device_for, line, parse
from tests.bundle.workloads import EIGHT, FOUR
from tests.tune.records import record as cpu_record

T4, H100 = find_target("sm_75"), find_target("sm_90")


def results(path, workload=EIGHT, us=(30.0, 20.0, 25.0), target=T4, gpu="Tesla T4", measured="2026-01-01"):
    """Writes a workload's results as a bundle does; a candidate without a time failed.  Returns the candidates."""
    choices = candidates(workload, target, len(us))
    common = record(choices[0], target) | {"device": {"gpu": gpu, "sms": 40}, "driver": "12.4", "measured": measured}
    with path.open("a") as file:
        for choice, each in zip(choices, us, strict=True):
            times = {"rounds_us": [[each]] * 9 if each else [], "error": None if each else "output 0 differs"}
            file.write(json.dumps(common | {"schedule": choice.name, "config": to_json(choice.config)} | times) + "\n")
    return choices


def test_a_build_takes_what_was_fastest(tmp_path):
    choices = results(tmp_path / "results.jsonl")
    (log,), _ = take(tmp_path / "results.jsonl", tmp_path / "logs")
    assert log == tmp_path / "logs" / "tesla-t4" / "nvidia-t4-1.jsonl"
    for device in (None, GpuDevice("Tesla T4", 40), GpuDevice("T4G", 40)):
        tuned = load_tuned(T4, 1, device, [tmp_path / "logs"])
        assert choose(EIGHT, T4, 1, tuned) == replace(choices[1], measured=True)
        assert not choose(FOUR, T4, 1, tuned).measured
        assert not choose(EIGHT, find_target("sm_80"), 1, tuned).measured


def test_this_machines_gpu_goes_before_others(tmp_path, monkeypatch):
    fast_there = results(tmp_path / "results", us=(1.0, 2.0), gpu="Tesla T4G", measured="2026-02-01")
    results(tmp_path / "results", us=(9.0, 8.0))
    take(tmp_path / "results", tmp_path / "logs")
    monkeypatch.setattr(gpu, "gpus", lambda: (Gpu(0, "Tesla T4", "sm_75", 40),))
    here = load_tuned(T4, 1, device_for(T4), [tmp_path / "logs"])
    assert choose(EIGHT, T4, 1, here).config == fast_there[1].config
    monkeypatch.setattr(gpu, "gpus", lambda: ())
    assert device_for(T4) is None


def test_results_that_are_there_are_not_added_again(tmp_path):
    results(tmp_path / "results")
    (log,), rows = take(tmp_path / "results", tmp_path / "logs")
    content = log.read_text()
    assert content == (tmp_path / "results").read_text()
    results(tmp_path / "results", FOUR)
    assert take(tmp_path / "results", tmp_path / "logs")[1][:1] == rows
    assert log.read_text() == (tmp_path / "results").read_text()


def test_rows_tell_the_default_the_best_and_failures(tmp_path):
    results(tmp_path / "results", us=(30.0, None, 25.0))
    results(tmp_path / "results", FOUR, us=(None, None))
    _, (first, second) = take(tmp_path / "results", tmp_path / "logs")
    assert (first.default_us, first.us, first.tried, first.failed, first.note) == (30.0, 25.0, 3, 1, None)
    assert (second.default_us, second.us, second.tried, second.failed) == (None, None, 2, 2)
    told = show([first, second]).splitlines()
    assert "3x3 4x4 64 uint8->uint8" in told[2] and told[2].split()[-5:] == ["30.00", "25.00", "3", "1", "-"]


def test_unpacked_4_bits_are_labelled(tmp_path):
    results(tmp_path / "results", FOUR, target=H100, gpu="NVIDIA H200")
    results(tmp_path / "results", EIGHT, target=H100, gpu="NVIDIA H200")
    (log,), rows = take(tmp_path / "results", tmp_path / "logs")
    assert log == tmp_path / "logs" / "nvidia-h200" / "nvidia-h100-1.jsonl"
    assert [row.note for row in rows] == [UNPACKED, None]
    assert UNPACKED in show(rows)
    records = [parse(text) for text in log.read_text().splitlines()]
    assert [each.note for each in records] == [UNPACKED] * 3 + [None] * 3
    assert parse(line(records[0])) == records[0] and parse(line(records[-1])) == records[-1]


@pytest.mark.parametrize(
    ("content", "target", "message"),
    [
        (None, None, "cannot read the results .*: No such file"),
        ("", None, "is empty: run the bundle"),
        ("{}\n", None, "line 1 of .* is no result of a bundle"),
        ("torn", None, "line 4 of .* is no result of a bundle"),
        (line(cpu_record()), None, "line 1 of .* is no result of a bundle"),
        ("good", "sm_80", "line 1 of .* was measured for nvidia/nvidia-t4, not for nvidia/nvidia-a100"),
        ("good", "sm_99", 'unknown target "sm_99"'),
        ("other", None, "line 1 of .* was measured for avx2, not for an NVIDIA GPU"),
    ],
    ids=str,
)
def test_what_is_no_result_is_refused_in_one_line(tmp_path, content, target, message):
    path = tmp_path / "results"
    if content in ("good", "torn", "other"):
        results(path)
        whole = path.read_text().replace("nvidia/nvidia-t4", "avx2") if content == "other" else path.read_text()
        path.write_text(whole + whole[:200] * (content == "torn"))
    elif content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match=message) as caught:
        take(path, tmp_path / "logs", target)
    assert "\n" not in str(caught.value) and not (tmp_path / "logs").exists()


def test_logs_that_cannot_be_written_are_told(tmp_path):
    results(tmp_path / "results")
    (tmp_path / "logs").write_text("")
    with pytest.raises(BadInput, match="cannot write"):
        take(tmp_path / "results", tmp_path / "logs")
