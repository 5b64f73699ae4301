"""The commands on artifacts and run files: measured, compared, refused; exit codes; what stays when they fail."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hawqtvm.deploy import deploy
from hawqtvm.errors import BadInput
from hawqtvm.report import __main__ as cli
from hawqtvm.report import machine, measure, measure_pairs, read_run, write_run
from hawqtvm.report.again import again
from hawqtvm.report.compare import compare
from tests.nets import quantized_net
from tests.report.simulate import apart, in_turns

ROOT = Path(__file__).parents[2]
ROUNDS, TURNS = 2, 3


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """One small network at 8 and at 4 bits, for any x86-64; not to be changed."""
    net, place = quantized_net("residual"), tmp_path_factory.mktemp("artifacts")
    settings = {"batch": 2, "threads": 1, "target": "x86-64", "verify": False, "measure": False}
    return [deploy(net, bits, out=place / f"int{bits}", **settings).path for bits in (8, 4)]


@pytest.fixture(scope="module")
def pair(artifacts):
    return measure_pairs(artifacts[:1], artifacts[1:], rounds=ROUNDS, turns=TURNS, commits=("a", "b"))


def test_every_sample_and_its_circumstances_are_kept(artifacts, pair):
    base, head = pair
    manifest = json.loads((artifacts[0] / "manifest.json").read_text())
    network = base.networks[0]
    assert [layer.name for layer in network.layers] == [row["name"] for row in manifest["layers"]]
    assert (network.name, network.batch, network.threads, network.plan) == ("int8", 2, 1, "int8")
    assert network.library == manifest["library_sha256"] and network.plan_hash != head.networks[0].plan_hash
    assert network.checkpoint == head.networks[0].checkpoint == manifest["provenance"]["checkpoint_sha256"]
    for ours, theirs in zip(network.series.values(), head.networks[0].series.values(), strict=False):
        # as many calls in each turn on both sides
        assert [[len(turn) for turn in turns] for turns in ours] == [[len(turn) for turn in turns] for turns in theirs]
        assert len(ours) == ROUNDS and all(len(turns) == TURNS for turns in ours)
    layers = sum(min(us for turns in layer.us for turn in turns for us in turn) for layer in network.layers)
    assert layers > 0 and base.device == machine.device() and base.versions == machine.versions()
    assert base.session == head.session and base.load == head.load and (base.commit, head.commit) == ("a", "b")
    assert all(load.others >= 0 and load.average >= 0 for load in base.load)


def test_a_run_of_both_is_one_session_and_survives_the_file(artifacts, tmp_path):
    made = measure(artifacts, rounds=1, turns=1, threads=1)
    assert [network.name for network in made.networks] == ["int8", "int4"]
    write_run(made, tmp_path / "run.json")
    assert read_run(tmp_path / "run.json") == made


def test_what_cannot_be_measured_is_refused_by_name(artifacts, tmp_path):
    with pytest.raises(BadInput, match="no such artifact directory"):
        measure([tmp_path / "absent"])
    with pytest.raises(BadInput, match="two artifacts are called int8"):
        measure([artifacts[0], artifacts[0]])
    with pytest.raises(BadInput, match="threads=9999"):
        measure(artifacts, threads=9999)
    for name in ("rounds", "turns"):
        with pytest.raises(BadInput, match=f"{name} 0: give a whole number"):
            measure(artifacts, **{name: 0})


def test_the_second_measurement_is_of_the_same_artifacts(pair, capsys):
    base, head = pair
    fresh = again(base, head)()
    assert fresh[0].session == fresh[1].session != base.session
    assert [side.networks[0].library for side in fresh] == [side.networks[0].library for side in pair]
    assert len(fresh[0].load) == ROUNDS and len(fresh[0].load[0].yardstick_us) == TURNS

    def with_network(side, **changes):
        return replace(side, networks=(replace(side.networks[0], **changes),))

    alone = again(with_network(base, path="absent"), head)()
    assert alone[0].networks[0].path == "absent" and alone[1].session not in (base.session, fresh[1].session)
    assert "base cannot be: no such artifact" in capsys.readouterr().err
    assert again(base, with_network(head, library="0" * 64))() is None
    assert "holds another library now" in capsys.readouterr().err
    elsewhere = replace(head.device, driver="Linux 2.4")
    assert again(replace(base, device=elsewhere), replace(head, device=elsewhere))() is None


@pytest.fixture
def runs(tmp_path):
    """Function: base.json and head.json of a simulated machine, whose artifacts are nowhere."""

    def write(maker=in_turns, **head):
        for made, name in zip(maker("quiet", np.random.default_rng(0), **head), ("base", "head"), strict=True):
            write_run(made, tmp_path / f"{name}.json")
        return [str(tmp_path / f"{name}.json") for name in ("base", "head")]

    return write


def test_exit_codes(runs, capsys, monkeypatch):
    assert cli.main(["compare", *runs()]) == 0
    assert "latency: pass" in capsys.readouterr().out.lower()
    slower = {"slower": {"body.0": 1.3}}
    assert cli.main(["compare", *runs(**slower)]) == 3
    told = capsys.readouterr()
    assert "inconclusive" in told.out and "cannot measure again: this machine is" in told.err
    assert cli.main(["compare", *runs(apart, **slower), "--no-remeasure"]) == 3
    assert "cannot measure" not in capsys.readouterr().err
    monkeypatch.setattr(
        cli, "again", lambda *_: lambda: in_turns("quiet", np.random.default_rng(1), session="t", **slower)
    )
    assert cli.main(["compare", *runs(**slower), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "regression"
    assert cli.main(["compare", *runs(**slower), "--layer-percent", "40", "--network-percent", "20"]) == 0


def test_all_outputs_are_written(runs, tmp_path, capsys):
    names = {"out": "o.json", "markdown": "m.md", "junit": "j.xml", "html": "p.html", "benchmark": "b.json"}
    options = [part for option, name in names.items() for part in (f"--{option}", str(tmp_path / "made" / name))]
    assert cli.main(["compare", *runs(), *options]) == 0
    made = {path.name: path.read_text() for path in (tmp_path / "made").iterdir()}
    assert set(made) == set(names.values()) and made["m.md"] == capsys.readouterr().out
    assert json.loads(made["o.json"])["verdict"] == "pass" and len(json.loads(made["b.json"])) == 6
    assert ElementTree.fromstring(made["j.xml"].encode()).tag == "testsuites"
    assert made["p.html"].startswith("<!doctype html>")


def test_measure_and_history_from_the_shell(artifacts, tmp_path):
    def report(*arguments):
        command = [sys.executable, "-m", "hawqtvm.report", *map(str, arguments)]
        environment = dict(os.environ, PYTHONPATH=str(ROOT))
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    done = report("measure", artifacts[0], "--rounds", 2, "--turns", 1, "--out", "run.json", "--history", "h", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["times"][0]["network"] == "int8" and told["times"][0]["layer"] is None and told["rounds"] == 2
    made = read_run(tmp_path / "run.json")
    (kept,) = (tmp_path / "h" / made.device.name).iterdir()
    assert read_run(kept) == made
    done = report("history", "h", "--html", "page.html")
    assert (done.returncode, done.stdout) == (0, "no steps and no drifts\n") and (tmp_path / "page.html").exists()
    done = report("compare", "run.json", "run.json")
    assert done.returncode == 2 and done.stderr.startswith("error: 2 rounds cannot tell anything of ")


def test_sets_are_interleaved_by_name(artifacts, tmp_path, capsys, monkeypatch):
    for side, names in (("base", ("x", "y")), ("head", ("y", "z"))):
        for name in names:
            (tmp_path / side).mkdir(exist_ok=True)
            (tmp_path / side / name).symlink_to(artifacts[0])
    asked = {}

    def fake(base, head, **settings):
        asked.update(base=base, head=head, **settings)
        return in_turns("quiet", np.random.default_rng(0))

    monkeypatch.setattr(cli, "measure_pairs", fake)
    sides = [str(tmp_path / "base"), str(tmp_path / "head")]
    assert cli.main(["compare", *sides, "--interleave", "--rounds", "9", "--runs", str(tmp_path / "kept")]) == 0
    assert asked["base"] == [tmp_path / "base" / "y"] and asked["head"] == [tmp_path / "head" / "y"]
    assert asked["rounds"] == 9 and {p.name for p in (tmp_path / "kept").iterdir()} == {"base.json", "head.json"}
    (tmp_path / "head" / "y").unlink()
    (tmp_path / "head" / "w").symlink_to(artifacts[0])
    with pytest.raises(BadInput, match="no artifacts of one name"):
        cli.main(["compare", *sides, "--interleave"])


def test_what_is_no_comparison_is_not_measured(artifacts, monkeypatch):
    monkeypatch.setattr(sys.modules[measure.__module__], "_round", lambda job: pytest.fail("a round was measured"))
    with pytest.raises(BadInput, match="2 rounds cannot tell anything of .* times at once: measure with --rounds"):
        cli.main(["compare", *map(str, artifacts), "--interleave", "--rounds", "2"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("compare absent.json head.json", "no such file: absent.json"),
        ("compare cut.json head.json", "cut.json is not JSON"),
        ("compare base.json head.json --network-percent 0", "network factor 1.0"),
        ("compare base.json head.json --history absent", "no such history: absent"),
        ("compare base.json head.json --latency cut.json", "cut.json is not JSON"),
        ("compare base.json head.json --tuning-logs absent", "no such folder of tuning logs"),
        ("compare base.json head.json --html base.json/page.html", "cannot write"),
        ("compare base.json few.json", "few"),
        ("compare absent head --interleave", "no such artifact directory: absent"),
        ("measure absent --out run.json", "no such artifact directory: absent"),
        ("measure absent --out base.json/run.json", "cannot write"),
        ("history absent", "no such history"),
    ],
)
def test_bad_input_changes_nothing(runs, tmp_path, monkeypatch, arguments, message):
    runs()
    monkeypatch.chdir(tmp_path)
    Path("cut.json").write_text(Path("base.json").read_text()[:900])
    write_run(in_turns("quiet", np.random.default_rng(0), rounds=3, session="few")[1], "few.json")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput, match="3 rounds cannot tell" if message == "few" else message) as raised:
        cli.main(arguments.split())
    assert "\n" not in str(raised.value) and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("arguments", ["", "nonsense", "--json compare", "measure x", "compare x", "history"])
def test_wrong_arguments_are_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments.split())
    assert raised.value.code == 2 and capsys.readouterr().err.startswith("error: ")


def test_help_is_light():
    code = "import sys; sys.argv = ['report', '--help']; import runpy\n"
    code += "try: runpy.run_module('hawqtvm.report', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "print(sorted({'tvm', 'torch', 'scipy', 'jinja2'} & set(sys.modules)))"
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.slow
def test_a_network_compared_with_itself_is_no_regression(artifacts, tmp_path):
    base, head = measure_pairs(artifacts[:1], artifacts[:1])
    comparison = compare(base, head, again=again(base, head))
    assert comparison.interleaved and comparison.verdict != "regression"
    assert len(comparison.rows) == 1 + len(base.networks[0].layers)
