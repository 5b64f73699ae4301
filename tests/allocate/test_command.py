"""``python -m hawqtvm.allocate`` as a user meets it."""

import json
from pathlib import Path

import pytest

from hawqtvm.allocate.__main__ import main
from hawqtvm.errors import BadInput
from hawqtvm.plan import load_plan

TABLE = str(Path(__file__).with_name("hawqv3_resnet18.json"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_plan_is_written_and_read_back(here, capsys):
    assert main(["--layers", TABLE, "--latency", "0.5", "--size", "7MB", "--fix", "layer1.0.conv1=8"]) == 0
    out = capsys.readouterr().out
    plan = load_plan("plan.json")
    assert plan.bits["layer1.0.conv1"] == 8 and len(plan.bits) == 19 and plan.provenance["limits"]["size_mb"] == 7.0
    assert "7 of 19 layers at 4 bits, proved optimal" in out and all(layer in out for layer in plan.bits)
    assert main(["--layers", TABLE, "--latency", "0.5", "--json", "--out", "other.json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["plan"] == "other.json" and result["optimal"] is True
    assert result["predicted"]["latency_ms"] <= result["limits"]["latency_ms"]


def test_the_frontier_comes_as_json_and_pictures(here, capsys):
    assert main(["--layers", TABLE, "--pareto", "size", "--points", "3", "--out", "f.json"]) == 0
    assert sorted(path.name for path in here.iterdir()) == ["f.json", "f.png", "f.svg"]
    points = json.loads((here / "f.json").read_text())["points"]
    sizes = [point["predicted"]["size_mb"] for point in points]
    assert sizes == sorted(sizes, reverse=True) and "layers at 4 bits" in capsys.readouterr().out


def test_an_explanation_writes_nothing(here, capsys):
    assert main(["--layers", TABLE, "--latency", "0.5", "--explain", "layer3.1.conv2"]) == 0
    assert "layer3.1.conv2 has 4 bits" in capsys.readouterr().out and list(here.iterdir()) == []


def test_the_figure_has_three_limits(here, capsys):
    assert main(["--layers", TABLE, "--figure", "i1.svg", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["pictures"] == ["i1.png", "i1.svg"] and len(result["plans"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--latency 0.5", "--sensitivity FILE is needed"),
        (f"--layers {TABLE}", "no limit: give one or more of"),
        (f"--layers {TABLE} --explain layer1.0.conv1", "no limit: --explain"),
        (f"--layers {TABLE} --latency 2ms", "no plan meets --latency 2ms; the nearest that one does is"),
        (f"--layers {TABLE} --latency 0.5 --fix layer1.0.conv1", "--fix layer1.0.conv1: give a layer and its bits"),
        (f"--layers {TABLE} --latency 0.5 --fix layer1.0.conv1=6", "--fix layer1.0.conv1=6: give"),
        (f"--layers {TABLE} --latency 0.5 --fix stem=8", "no layer 'stem'"),
        (f"--layers {TABLE} --latency 0.5 --seconds 0", "--seconds 0"),
        (f"--layers {TABLE} --latency 0.5 --model digits", "--layers stands in place of --model"),
        (f"--layers {TABLE} --pareto latency --latency 0.5", "leave --latency out"),
        (f"--layers {TABLE} --pareto latency --points 1", "--points 1: give a whole number, 2 or more, or all"),
        (f"--layers {TABLE} --pareto latency --out f.png", "--out f.png: the frontier is JSON"),
        (f"--layers {TABLE} --figure f.pdf", "png and svg"),
        ("--layers nowhere.json --size 0.5", "no such table of layers: nowhere.json"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(here, arguments, message):
    with pytest.raises(BadInput, match=message):
        main(arguments.split())
    assert list(here.iterdir()) == []
