"""What is written to a tuning log is read back, and nothing else is."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hawqtvm.errors import BadInput
from hawqtvm.files import append_lines, check_appendable
from schedules.plain_json import from_json, to_json
from schedules.tuning_log import Device, line, log_path, parse, read
from tests.tune.records import CONV, HERE, WORKLOADS, record

US = st.floats(0.01, 1e7)
RECORD = record()


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: type(workload).__name__)
def test_a_record_of_every_workload_comes_back(workload):
    made = record(workload)
    text = line(made)
    assert text.endswith("\n") and text.count("\n") == 1
    assert parse(text) == made
    assert from_json(type(workload), json.loads(json.dumps(to_json(workload)))) == workload


@given(
    rounds=st.lists(st.lists(US, min_size=1).map(tuple), min_size=1).map(tuple),
    config=st.dictionaries(st.text(), st.integers() | st.booleans() | st.text()),
    cpu=st.text(),
)
def test_any_times_and_configs_come_back(rounds, config, cpu):
    made = replace(RECORD, rounds=rounds, config=config, device=Device(cpu, 2))
    assert parse(line(made)) == made


def test_a_failure_comes_back():
    failed = replace(RECORD, rounds=(), error='TypeError: "no"\nsecond line')
    assert parse(line(failed)) == failed


def test_the_line_says_the_median_of_the_rounds_best_and_the_least():
    made = replace(RECORD, rounds=((9.0, 5.0), (7.0, 8.0), (30.0, 40.0)))
    fields = json.loads(line(made))
    assert (fields["median_us"], fields["min_us"], fields["rounds_us"][0]) == (7.0, 5.0, [9.0, 5.0])
    assert fields["device"] == {"cpu": "Here 1.0", "cores": 2} and fields["workload"]["op"] == "Conv2d"


def changed(**fields):
    return json.dumps(json.loads(line(RECORD)) | fields)


def without(name):
    return json.dumps({key: value for key, value in json.loads(line(RECORD)).items() if key != name})


WORKLOAD = json.loads(line(RECORD))["workload"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "\x00\x00",
        "[" * 100_000,
        changed(version=2),
        changed(format="other"),
        changed(threads=True),
        changed(threads="1"),
        changed(device={"cpu": "x"}),
        changed(device={"cpu": "x", "cores": 2, "more": 1}),
        changed(config=3),
        changed(rounds_us=[]),
        changed(rounds_us=[[]]),
        changed(rounds_us=[[1.0, -1.0]]),
        changed(rounds_us=[[float("nan")]]),
        changed(rounds_us=[["1"]]),
        changed(workload=WORKLOAD | {"op": "Conv3d"}),
        changed(workload=WORKLOAD | {"unheard_of": 1}),
        changed(workload=WORKLOAD | {"kernel": [3]}),
        changed(workload=WORKLOAD | {"batch": True}),
        changed(workload=WORKLOAD | {"x": WORKLOAD["x"] | {"code": "uint5"}}),
        changed(workload="Conv2d"),
        *(without(name) for name in ("target", "threads", "workload", "schedule", "config", "rounds_us", "error")),
    ],
)
def test_what_is_no_record_is_none(text):
    assert parse(text) is None


def test_a_log_is_read_past_a_torn_line_wherever_it_was_cut(tmp_path):
    first, second = record(us=10.0), record(us=20.0, config={"other": 1})
    path = tmp_path / "log.jsonl"
    whole = line(first) + line(second)
    for end in range(len(line(first)), len(whole), 37):
        path.write_text(whole[:end])
        assert list(read(path)) == [first]
        append_lines(path, line(second))
        assert list(read(path)) == [first, second]


def test_lines_that_are_no_records_are_passed_over(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\xff\xfe\n\n" + changed(version=9).encode() + b"\n" + line(RECORD).encode() + b"{}\n")
    assert list(read(path)) == [RECORD]


def test_the_last_record_of_a_trial_stands_for_it(tmp_path):
    path = tmp_path / "log.jsonl"
    other, again = record(config={"other": 1}), replace(RECORD, rounds=((1.0,),))
    append_lines(path, line(RECORD) + line(other))
    append_lines(path, line(again))
    assert sorted(r.median for r in read(path)) == [1.0, 100.0]
    assert RECORD.trial == again.trial != other.trial


@pytest.mark.parametrize("change", [{"target": "avx2"}, {"threads": 2}, {"schedule": "other"}, {"config": {}}])
def test_trials_differ_in_all_that_was_tried(change):
    assert replace(RECORD, **change).trial != RECORD.trial


def test_trials_do_not_differ_in_where_and_when():
    assert replace(RECORD, device=Device("x", 1), measured="", tvm="").trial == RECORD.trial
    assert replace(RECORD, workload=replace(CONV, batch=2)).trial != RECORD.trial


def test_no_log_has_no_records_and_a_folder_is_no_log(tmp_path):
    assert list(read(tmp_path / "absent")) == []
    with pytest.raises(BadInput, match="cannot read the tuning log"):
        list(read(tmp_path))


def test_where_a_log_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file/deeper/log", "file/log", "."):
        with pytest.raises(BadInput, match="cannot write"):
            check_appendable(tmp_path / place)
        with pytest.raises(BadInput, match="cannot write"):
            append_lines(tmp_path / place, "x\n")
    check_appendable(tmp_path / "new" / "deep" / "log")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_a_devices_folder_is_a_plain_name(tmp_path):
    assert log_path(tmp_path, HERE, "avx2", 2) == tmp_path / "here-1-0-2-cores" / "avx2-2.jsonl"
    assert Device("Intel(R) Xeon(R) CPU @ 2.50GHz", 2).folder == "intel-xeon-2-50ghz-2-cores"
    assert Device("../", 1).folder == "1-cores"
