"""Run files and histories: whole or refused, safe to add to at once; steps, drifts and odd runs in them."""

import json
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest

from hawqtvm.errors import BadInput
from hawqtvm.report.changes import find_changes
from hawqtvm.report.history import append, read_history, trends
from hawqtvm.report.report import dated_changes
from hawqtvm.report.run import artifacts_in, read_run, write_run
from tests.report.simulate import LAYERS, run

RUNS = 40


def made(rounds=7, **changes):
    rng = np.random.default_rng(0)
    return run(np.ones((rounds, 6)), rng, **changes)


def test_a_run_is_read_as_it_was_written(tmp_path):
    write_run(made(), tmp_path / "run.json")
    assert read_run(tmp_path / "run.json") == made()


def test_a_run_cut_short_anywhere_is_refused(tmp_path):
    write_run(made(), tmp_path / "run.json")
    content = (tmp_path / "run.json").read_bytes()
    for length in [0, 1, *range(100, len(content) - 2, len(content) // 20)]:
        (tmp_path / "cut.json").write_bytes(content[:length])
        with pytest.raises(BadInput, match="cut.json"):
            read_run(tmp_path / "cut.json")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.update(version=2), "newer than this hawqtvm reads"),
        (lambda f: f.update(format="hawqtvm-artifact"), "not a hawqtvm-run"),
        (lambda f: f.pop("device"), "damaged run"),
        (lambda f: f["device"].update(cores="two"), "damaged run"),
        (lambda f: f.update(networks=[]), "no networks"),
        (lambda f: f["networks"].append(f["networks"][0]), "two networks share a name"),
        (lambda f: f["networks"][0]["us"].pop(), "the network has not the rounds"),
        (lambda f: f["networks"][0]["layers"][1]["us"][2].pop(), "net: body.0 has not the rounds"),
        (lambda f: f["networks"][0]["layers"][1]["us"][2][0].clear(), "net: body.0 has not the rounds"),
        (lambda f: f["networks"][0]["us"][0][0].__setitem__(0, 0.0), "a time that is none"),
        (lambda f: f["networks"][0]["us"][0][0].__setitem__(0, float("nan")), "a time that is none"),
        (lambda f: f["load"][0]["yardstick_us"].__setitem__(0, -1.0), "yardstick"),
    ],
)
def test_a_damaged_run_is_refused_by_name(tmp_path, spoil, message):
    write_run(made(), tmp_path / "run.json")
    fields = json.loads((tmp_path / "run.json").read_text())
    spoil(fields)
    (tmp_path / "run.json").write_text(json.dumps(fields))
    with pytest.raises(BadInput, match=message) as raised:
        read_run(tmp_path / "run.json")
    assert "run.json" in str(raised.value) and "\n" not in str(raised.value)


def test_sets_of_artifacts(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
    (tmp_path / "other").mkdir()
    assert artifacts_in(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert artifacts_in(tmp_path / "a") == [tmp_path / "a"]
    with pytest.raises(BadInput, match="holds no artifact"):
        artifacts_in(tmp_path / "other")


def add(folder):
    for _ in range(5):
        append(folder, made())


def test_jobs_add_to_a_history_at_once(tmp_path):
    """Runs of one commit and one second: nothing but chance tells their files apart."""
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=add, args=(tmp_path / "history",)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert read_history(tmp_path / "history") == [made()] * 15
    assert {path.parent.name for path in (tmp_path / "history").glob("*/*")} == {"some-cpu-2-cores"}


def test_damaged_files_of_a_history_are_named_and_left_out(tmp_path, capsys):
    good, bad = append(tmp_path, made(commit="1")), append(tmp_path, made(commit="2"))
    bad.write_text(bad.read_text()[:500])
    assert [r.commit for r in read_history(tmp_path)] == ["1"]
    assert bad.name in capsys.readouterr().err
    good.unlink()
    with pytest.raises(BadInput, match="no run that can be read"):
        read_history(tmp_path)
    with pytest.raises(BadInput, match="no such history"):
        read_history(tmp_path / "absent")


def test_trends_are_by_device_and_setting_in_units_of_the_yardstick():
    """A machine at half its speed, and another device: one level, and a trend of its own."""
    rng = np.random.default_rng(0)
    days = [f"2026-01-{day:02}T00:00:00+00:00" for day in range(1, 5)]
    runs = [run(np.full((8, 6), 2.0 if day == 2 else 1.0), rng, measured=when) for day, when in enumerate(days)]
    t4 = replace(made(), device=replace(made().device, name="tesla-t4"))
    found = trends([*runs, t4])
    assert len(found) == 2 * (1 + len(LAYERS)) and {trend.device for trend in found} == {"some-cpu-2-cores", "tesla-t4"}
    network = next(trend for trend in found if trend.layer is None)
    assert [point.measured for point in network.points] == days
    for point in network.points:
        assert point.us == pytest.approx(sum(LAYERS.values()), rel=0.02) and point.low <= point.us <= point.high


def series(rng, shape):
    return 100 * np.exp(rng.normal(0, 0.01, RUNS)) * shape(np.arange(RUNS))


def steps(*at):
    return lambda t: np.prod([np.where(t >= first, ratio, 1.0) for first, ratio in at], axis=0)


def found_in(shape, count=10):
    return [find_changes(series(np.random.default_rng(seed), shape), 1.03) for seed in range(count)]


@pytest.mark.parametrize(
    "shape",
    [
        lambda t: np.ones(RUNS),
        lambda t: np.where(t == 25, 2.0, 1.0),
        lambda t: np.where((t == 5) | (t == 25), 0.5, 1.0),
        lambda t: np.where(t >= RUNS - 2, 1.3, 1.0),
        lambda t: np.where(t >= 20, 1.01, 1.0),
    ],
)
def test_noise_odd_runs_and_small_steps_are_no_changes(shape):
    assert found_in(shape) == [[]] * 10


@pytest.mark.parametrize("at", [[(25, 1.06)], [(12, 1.06), (25, 1.06)], [(15, 1.08), (28, 1 / 1.08)], [(30, 0.9)]])
def test_steps_are_found_and_dated(at):
    right = 0
    for changes in found_in(steps(*at)):
        assert [change.kind for change in changes] == ["step"] * len(at)
        for change, (first, ratio) in zip(changes, at, strict=True):
            assert abs(change.first - first) <= 2 and change.ratio == pytest.approx(ratio, rel=0.02)
            right += change.first == first
    assert right >= 0.7 * 10 * len(at)


def test_a_step_beside_odd_runs_is_found():
    rng = np.random.default_rng(0)
    for _ in range(10):
        noise = np.exp(0.01 * rng.standard_t(2, RUNS))
        (change,) = find_changes(100 * noise * steps((25, 1.08))(np.arange(RUNS)), 1.03)
        assert change.kind == "step" and abs(change.first - 25) <= 2


def test_a_small_step_however_clear_is_not_beyond_the_factor():
    clear = np.exp(0.001 * np.random.default_rng(0).normal(size=RUNS)) * steps((20, 1.02))(np.arange(RUNS))
    assert find_changes(clear, 1.03) == [] and len(find_changes(clear, 1.01)) == 1


def test_a_drift_is_no_staircase():
    for changes in found_in(lambda t: np.exp(0.004 * t)):
        assert [change.kind for change in changes] == ["drift"]
        assert changes[0].ratio == pytest.approx(np.exp(0.004 * (RUNS - 1)), rel=0.02)
    assert find_changes([1.0] * 7, 1.03) == find_changes([1.0] * 30, 1.03) == []


def test_changes_carry_their_commit():
    rng = np.random.default_rng(0)
    runs = [
        run(
            np.ones((7, 6)),
            rng,
            measured=f"2026-01-{i + 1:02}T00:00:00+00:00",
            commit=f"c{i}",
            network=1 + 0.1 * (i >= 9),
        )
        for i in range(16)
    ]
    (found,) = dated_changes(trends(runs), 1.03, 1.10)
    change = found.as_json
    assert (change["kind"], change["commit"], change["layer"], change["measured"][:10]) == (
        "step",
        "c9",
        None,
        "2026-01-10",
    )
    assert change["ratio"] == pytest.approx(1.1, rel=0.01)
