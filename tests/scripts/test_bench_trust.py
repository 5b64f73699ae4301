"""The trust table: what counts as what, and a run that goes on where it was stopped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.trust import __main__ as cli  # noqa: E402
from scripts.trust import trials as trying  # noqa: E402
from scripts.trust.table import markdown  # noqa: E402


def line(verdict="pass", row="pass", alarms=(), ratio=1.0, **place):
    made = {"number": 0, "load": "quiet", "kind": "A/A", "verdict": verdict, "alarms": list(alarms), "seconds": 20.0}
    return made | {"row": {"layer": None, "verdict": row, "ratio": ratio}} | place


def test_any_alarm_is_false_in_a_comparison_with_itself_and_the_slowed_row_must_be_caught_otherwise():
    aa = [line(), line("regression", alarms=["fc"]), line("inconclusive")]
    slower = {"kind": "layer slower", "load": "one core loaded", "verdict": "regression", "ratio": 1.15}
    caught = [line(row="regression", alarms=["a"], **slower), line(row="pass", alarms=["b"], **slower)]
    table = markdown(aa + caught).splitlines()
    assert table[2] == "| A/A | quiet | 3 | 1 | 1 | 1 | +0.0 % | 20 |"
    assert table[3] == "| layer slower | one core loaded | 2 | 1 | 0 | 1 | +15.0 % | 20 |"
    assert len(table) == 4


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    asked = []

    def trial(folder, subjects, kind, rounds):
        asked.append(kind)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return {key: value for key, value in line().items() if key not in ("number", "load", "kind")}

    monkeypatch.setattr(trying, "trial", trial)
    with pytest.raises(KeyboardInterrupt):
        trying.trials(tmp_path, {}, 2, 15)
    log = tmp_path / "trials.jsonl"
    log.write_text(log.read_text()[:-10])  # the last line torn
    trying.trials(tmp_path, {}, 2, 15)
    found = trying.read(log)
    assert len(asked) == 4 + 12 - 2
    assert len({(t["number"], t["load"], t["kind"]) for t in found}) == len(found) == 12
    asked.clear()
    trying.trials(tmp_path, {}, 2, 15)
    assert asked == [] and cli.main(["--table", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "table.md").read_text() == markdown(found)


def test_the_load_is_there_only_meanwhile(monkeypatch):
    started = []

    class Process(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(trying.subprocess, "Popen", Process)
    with trying.loaded("quiet"):
        assert not started
    with trying.loaded("one core loaded"):
        assert started[0].poll() is None
    assert started[0].poll() is not None


def test_lines_are_json(tmp_path):
    (tmp_path / "trials.jsonl").write_text(json.dumps(line()) + "\nno json\n")
    assert trying.read(tmp_path / "trials.jsonl") == [line()] and trying.read(tmp_path / "absent") == []
