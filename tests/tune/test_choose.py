"""Which measured schedule a build replays, and what it passes over."""

import random
from dataclasses import replace

import pytest

from hawqtvm.qnn.formats import Format
from schedules.cpu import conv2d_direct, portable
from schedules.dispatch import choose, with_layouts
from schedules.target import find_target
from schedules.tuned import Tuned, load_tuned
from schedules.tuning_key import tuning_key
from schedules.tuning_log import line, log_path
from schedules.workload import Concat, Elementwise, Rescaled
from tests.tune.records import AVX2, BLOCKED, CONV, HERE, THERE, VNNI, WORKLOADS, configs, record

DEFAULT, SECOND, THIRD = configs()[:3]
LATER = "2026-01-02T00:00:00.000+00:00"


def chosen(*records, workload=CONV, target=VNNI, threads=1):
    return choose(workload, target, threads, Tuned(records, HERE))


def config_of(*records, **where) -> dict | None:
    """The fields of the measured config that is chosen, None where an estimate chooses."""
    choice = chosen(*records, **where)
    return vars(choice.config) if choice.measured else None


def test_without_records_the_default_is_taken():
    for tuned in (None, Tuned((), HERE)):
        choice = choose(CONV, VNNI, 1, tuned)
        assert not choice.measured and vars(choice.config) == DEFAULT


def test_the_fastest_is_taken_whatever_the_order():
    records = [record(us=us, config=config) for us, config in ((90.0, DEFAULT), (70.0, SECOND), (80.0, THIRD))]
    for seed in range(6):
        random.Random(seed).shuffle(records)
        assert config_of(*records) == SECOND


def test_who_outlasted_others_goes_before_a_lucky_start():
    lucky, steady = record(us=50.0, rounds=3, config=SECOND), record(us=60.0, rounds=9, config=THIRD)
    assert config_of(lucky, steady) == THIRD


def test_only_times_of_the_last_run_compare():
    quiet = record(us=50.0, config=SECOND)
    loud = [record(us=us, config=config, measured=LATER) for us, config in ((70.0, DEFAULT), (60.0, THIRD))]
    assert config_of(quiet, *loud) == THIRD


def test_this_device_goes_before_others_and_others_before_an_estimate():
    there = record(us=10.0, config=SECOND, device=THERE, measured=LATER)
    assert config_of(there) == SECOND
    assert config_of(there, record(us=20.0, config=THIRD)) == THIRD


@pytest.mark.parametrize(
    "change",
    [
        {"target": "avx2"},
        {"threads": 2},
        {"schedule": "unheard_of"},
        {"schedule": "dense"},
        {"schedule": portable.NAME, "config": {"parallel": True}},
        {"config": {}},
        {"config": SECOND | {"more": 1}},
        {"config": SECOND | {"rows": "6"}},
        {"config": SECOND | {"images": True}},
        {"config": SECOND | {"images": 0}},
        {"config": SECOND | {"row_tile": 29}},
        {"workload": tuning_key(replace(CONV, batch=2))},
        {"workload": tuning_key(replace(CONV, headroom=0))},
        {"workload": tuning_key(replace(CONV, x=Format("uint4", BLOCKED)))},
        {"rounds": (), "error": "it failed"},
    ],
    ids=str,
)
def test_what_does_not_fit_is_passed_over(change):
    unfit = replace(record(us=1.0, config=SECOND), **change)
    assert config_of(unfit) is None
    assert config_of(unfit, record(us=50.0, config=THIRD)) == THIRD


def test_numbers_that_change_no_instruction_share_a_measurement():
    residual = replace(CONV.epilogue.residual, zero_point=3, b=2**31 - 1, c=32)
    alike = replace(CONV, x_zero_point=0, epilogue=replace(CONV.epilogue, min_shift=50, residual=residual))
    assert config_of(record(config=SECOND), workload=alike) == SECOND
    for unlike in (
        replace(CONV, x_zero_point=9),
        replace(CONV, epilogue=replace(CONV.epilogue, min_shift=32)),
        replace(CONV, epilogue=replace(CONV.epilogue, residual=None)),
        replace(CONV, epilogue=replace(CONV.epilogue, residual=replace(residual, zero_point=0))),
        replace(CONV, epilogue=replace(CONV.epilogue, residual=replace(residual, c=33))),
    ):
        assert config_of(record(config=SECOND), workload=unlike) is None


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: type(workload).__name__)
def test_a_key_is_its_own_key_and_as_legal_as_what_it_stands_for(workload):
    key = tuning_key(workload)
    assert tuning_key(key) == key and type(key) is type(workload)
    assert choose(key, VNNI, 2).config == choose(workload, VNNI, 2).config


def test_a_key_keeps_clips_inside_the_codes_limits_apart():
    add = Elementwise((1, 32, 6, 6), (Rescaled(Format("uint8"), 0, 2**30, 35),), Format("uint8"), 0, 0, 255)
    keys = [tuning_key(replace(add, **change)) for change in ({"lo": 3}, {"lo": 9}, {"hi": 200}, {})]
    assert keys[0] == keys[1] and len(set(keys)) == 3
    wide = replace(add, out=Format("int16"), lo=-(2**15), hi=2**15 - 1)
    assert tuning_key(replace(wide, hi=99)) != tuning_key(replace(wide, hi=98))


@pytest.mark.parametrize("layout", ["NCHW", BLOCKED])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("target", [VNNI, AVX2], ids=["vnni", "avx2"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: type(workload).__name__)
def test_the_answer_is_the_same_in_the_layouts_chosen_first(workload, target, threads, layout):
    lies = with_layouts(workload, layout, layout)
    option = choose(lies, target, threads)
    for config in option.schedule.space(option.workload, target, threads)[-1:]:
        measured = record(target=target.name, threads=threads, schedule=option.name, config=vars(config))
        made = replace(measured, workload=tuning_key(option.workload))
        first = choose(lies, target, threads, Tuned([made], HERE))
        assert first.measured and first.config == config and first.workload == option.workload
        assert choose(first.workload, target, threads, Tuned([made], HERE)) == first


class Rival:
    """A second schedule for the direct convolution's workloads."""

    NAME = "rival"
    Config, formats, check = conv2d_direct.Config, conv2d_direct.formats, conv2d_direct.check
    space, default, build = conv2d_direct.space, conv2d_direct.default, conv2d_direct.build
    constants = conv2d_direct.constants

    @staticmethod
    def cycles(*key):
        return 2 * conv2d_direct.cycles(*key)


def test_schedules_compete(monkeypatch):
    for schedules in ((Rival, conv2d_direct), (conv2d_direct, Rival)):
        monkeypatch.setattr("schedules.dispatch.SCHEDULES", schedules)
        assert chosen().schedule is conv2d_direct, "the better estimate"
    direct = record(us=60.0, config=SECOND)
    for us, winner in ((50.0, Rival), (70.0, conv2d_direct)):
        assert chosen(direct, record(us=us, schedule="rival", config=THIRD)).schedule is winner


def test_the_fallbacks_records_count_only_where_it_is_the_only_one(monkeypatch):
    made = record(schedule=portable.NAME, config={"parallel": False})
    assert not chosen(made).measured
    monkeypatch.setattr("schedules.dispatch.SCHEDULES", ())
    assert chosen(made).schedule is portable


def test_a_record_in_other_layouts_is_another_workloads():
    concat = next(workload for workload in WORKLOADS if isinstance(workload, Concat))
    lies = {layout: with_layouts(concat, layout, layout) for layout in ("NCHW", BLOCKED)}
    made = record(lies["NCHW"], config={"parallel": True})
    assert config_of(made, workload=lies["NCHW"]) == {"parallel": True}
    assert config_of(made, workload=lies[BLOCKED]) is None


def test_logs_are_loaded_from_several_folders_for_one_target_and_number_of_threads(tmp_path):
    def write(folder, device, target, threads, made):
        path = log_path(tmp_path / folder, device, target, threads)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line(made) + "torn")

    write("mine", HERE, "avx512-vnni", 1, record(us=60.0, config=SECOND))
    write("shipped", HERE, "avx512-vnni", 1, record(us=50.0, config=THIRD))
    write("shipped", THERE, "avx512-vnni", 1, record(us=1.0, config=DEFAULT, device=THERE))
    write("shipped", HERE, "avx512-vnni", 2, record(us=1.0, config=DEFAULT))
    folders = [tmp_path / name for name in ("mine", "shipped", "absent")]
    for order in (folders, folders[::-1], folders * 2):
        tuned = load_tuned(VNNI, 1, HERE, order)
        assert [r.median for r in tuned.ranked(CONV, VNNI, 1)] == [50.0, 60.0, 1.0]
    assert load_tuned(find_target("avx2"), 1, HERE, folders).ranked(CONV, AVX2, 1) == []
