"""Layers against the peak: what is counted, what is said of it, and a small network through the whole command."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hawqtvm.deploy import deploy  # noqa: E402
from hawqtvm.errors import BadInput  # noqa: E402
from hawqtvm.runtime import load  # noqa: E402
from schedules.target import find_target  # noqa: E402
from scripts.layers import __main__ as cli  # noqa: E402
from scripts.layers import measure as measuring  # noqa: E402
from scripts.layers import peak  # noqa: E402
from scripts.layers.callbacks import LAYERS, RUNS, callback_times, copying_model  # noqa: E402
from scripts.layers.report import kind, shape, summarize  # noqa: E402
from scripts.layers.table import markdown  # noqa: E402
from tests.nets import quantized_net  # noqa: E402


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """One small network at 8 and at 4 bits, for any x86-64; not to be changed."""
    net, place = quantized_net("residual"), tmp_path_factory.mktemp("artifacts")
    settings = {"batch": 2, "threads": 1, "target": "x86-64", "verify": False, "measure": False}
    return [deploy(net, bits, out=place / str(bits), **settings).path for bits in (8, 4)]


@pytest.fixture
def any_cpu(monkeypatch):
    monkeypatch.setattr(measuring, "compile_peak", lambda: lambda: 1e9)


def layer(name="a", op="qnn.conv2d", macs=6000, x_dims=(1, 64, 8, 8), kernel=(3, 3), stride=1, groups=1, fused=None):
    return {
        "name": name,
        "op": op,
        "bits": 8,
        "schedule": "direct",
        "macs": macs,
        "geometry": {"x_dims": [*x_dims], "kernel": [*kernel], "strides": [stride] * 2, "groups": groups},
        "fused_residual": fused,
        "output": {"dims": [1, 128, 4, 4]},
    }


def pool(name="pool"):
    row = layer(name, "qnn.max_pool2d", 0)
    return {**row, "geometry": {"kernel": [2, 2], "strides": [2, 2]}}


def found(layers, rounds, runs=((50.0,),), threads=1, path="one"):
    manifest = {
        "model": "net",
        "plan": {"name": "int8"},
        "residual": "uint8",
        "input": {"shape": [1, 3, 16, 16]},
        "layers": layers,
    }
    return {
        "path": path,
        "manifest": manifest,
        "threads": threads,
        "runs": runs,
        "layers": {row["name"]: times for row, times in zip(layers, rounds, strict=True)},
    }


def test_the_peak_kernel_multiplies_as_often_as_it_says(needs_vnni):
    steps, rng = 5, np.random.default_rng(0)
    x, w = rng.integers(0, 256, 64).astype("uint8"), rng.integers(-128, 128, 64).astype("int8")
    out = tvm.runtime.tensor(np.zeros(peak.CHAINS * 16, "int32"))
    run = tvm.compile(peak.peak_kernel(steps), target=find_target(peak.TARGET).tvm)["main"]
    run(tvm.runtime.tensor(x), tvm.runtime.tensor(w), out)
    sums = steps * (x.astype("int64") * w).reshape(16, 4).sum(1)
    np.testing.assert_array_equal(out.numpy(), np.tile(sums, peak.CHAINS))
    assert peak.MACS == peak.STEPS * peak.CHAINS * 64


def test_the_peak_keeps_to_registers(needs_vnni):
    library = tvm.compile(peak.peak_kernel(), target=find_target(peak.TARGET).tvm)
    dots = [line for line in library.mod.inspect_source("asm").splitlines() if "vpdpbusd" in line]
    assert len(dots) % peak.CHAINS == 0 and not any("(" in line for line in dots)


def test_without_the_instruction_there_is_no_peak(monkeypatch):
    monkeypatch.setattr(peak, "cpu_features", lambda: frozenset({"avx2"}))
    with pytest.raises(BadInput, match="AVX512-VNNI, which this CPU lacks"):
        peak.compile_peak()


def test_layers_that_do_nothing_take_little_time(tmp_path):
    times = callback_times(copying_model(tmp_path))
    assert len(times) == LAYERS * RUNS and all(0 < seconds < 1 for seconds in times)


def test_kinds_and_shapes_of_layers():
    image = [1, 3, 16, 16]
    stem = layer(x_dims=image, kernel=(7, 7), stride=2)
    down = layer(kernel=(1, 1), stride=2, fused="uint8")
    grouped = layer(groups=64, stride=2)
    dense = {**layer(op="qnn.dense"), "geometry": {"x_dims": [1, 512, 1, 1]}}
    rows = [stem, layer(), grouped, down, dense, pool()]
    assert [kind(row, image) for row in rows] == [
        "stem",
        "3x3 stride 1",
        "3x3 stride 2 grouped",
        "1x1",
        "dense",
        "other",
    ]
    assert [shape(row) for row in rows] == [
        "7x7/2 16x16 3->128",
        "3x3 8x8 64->128",
        "3x3/2 8x8 64->128",
        "1x1/2 8x8 64->128 +r",
        "512->128",
        "max_pool2d 4x4 128",
    ]


def test_numbers_against_the_peak_of_all_threads():
    times = [[[10.0, 12.0, 14.0], [5.0, 30.0, 40.0]], [[2.0], [2.0]]]
    report = summarize(
        {
            "peak": [[1e9], [3e8]],
            "callbacks": [[2.0], [3.0]],
            "artifacts": [found([layer(), pool()], times, [[48.0, 52.0]], threads=2)],
        }
    )
    assert report["peak_gmacs"] == 1.0 and report["median_peak_gmacs"] == pytest.approx(0.65)
    assert report["callback_us"] == 2.5
    (artifact,) = report["artifacts"]
    conv, other = artifact["layers"]
    # 6000 MACs at 2 threads of 1e9 MAC/s
    assert conv["floor_us"] == pytest.approx(3.0)
    assert (conv["us"], conv["best_us"], conv["rounds_us"]) == (21.0, 5.0, [12.0, 30.0])
    assert conv["gmacs"] == pytest.approx(1.2) and conv["of_peak"] == pytest.approx(0.6)
    assert conv["lost_us"] == pytest.approx(2.0) and conv["share"] == pytest.approx(21 / 23)
    assert other["of_peak"] is None and other["floor_us"] == 0 and other["lost_us"] == 2.0
    assert (artifact["sum_us"], artifact["sum_best_us"], artifact["us"], artifact["best_us"]) == (23.0, 7.0, 50.0, 48.0)
    assert artifact["floor_us"] == pytest.approx(3.0)


def test_kinds_are_sums_in_a_fixed_order():
    layers = [layer("b"), layer("stem", x_dims=(1, 3, 16, 16)), pool(), layer("c"), layer("fc", "qnn.dense")]
    report = summarize(
        {"peak": [[1e9]], "callbacks": [[2.0]], "artifacts": [found(layers, [[[n + 10.0]] for n in range(5)])]}
    )
    kinds = report["artifacts"][0]["kinds"]
    assert [row["name"] for row in kinds] == ["stem", "3x3 stride 1", "dense", "other"]
    assert (kinds[1]["layers"], kinds[1]["macs"], kinds[1]["us"]) == (2, 12000, 23.0)
    assert kinds[1]["lost_us"] == pytest.approx(11.0) and kinds[1]["of_peak"] == pytest.approx(12 / 23)
    assert sum(row["share"] for row in kinds) == pytest.approx(1)


def page(*artifacts, **options):
    report = summarize({"peak": [[1e9]], "callbacks": [[2.0]], "artifacts": list(artifacts)})
    return markdown({"date": "today", "machine": {"cpu": "Some CPU", "cores": 2}, **report}, **options)


def rows_of(text):
    return [line for line in text.splitlines() if line.startswith("| ")]


def test_the_table_of_one_artifact():
    one = found([layer("a"), layer("b", macs=1000), pool()], [[[10.0]], [[20.0]], [[2.0]]])
    text = page(one)
    assert "| a | 3x3 8x8 64->128 | 8 | direct | 10 | 10 | 1 | 60% | 31.2% | 4 |" in text
    assert "| pool | max_pool2d 4x4 128 | 8 | direct | 2 | 2 | – | – | 6.2% | 2 |" in text
    assert "End to end 50 us, best 50; sum of layers 32, best 32; floor 7" in text
    assert "about 2.0 us of callbacks" in text
    ranked = [row.split()[1] for row in rows_of(page(one, by_loss=True))[-3:]]
    assert ranked == ["b", "a", "pool"]


def test_artifacts_stand_side_by_side():
    eight = found([layer("a"), pool("old")], [[[10.0], [20.0]], [[1.0], [1.0]]])
    four = found([{**layer("a"), "bits": 4}, pool("new")], [[[20.0], [40.0]], [[1.0], [1.0]]])
    text = page(eight, four)
    assert "| a | 3x3 8x8 64->128 | 8 / 4 | direct | 15 | 10 | 60% | 30 | 20 | 30% | 2.00 |" in text
    assert "| old | max_pool2d 4x4 128 | 8 | direct | 1 | 1 | – | – | – | – | – |" in text
    assert "| new | max_pool2d 4x4 128 | 8 | direct | – | – | – | 1 | 1 | – | – |" in text
    layers = rows_of(text)[rows_of(text).index(next(r for r in rows_of(text) if r.startswith("| layer"))) :]
    assert len({row.count("|") for row in layers}) == 1


def test_a_network_through_the_command(artifacts, any_cpu, tmp_path, capsys):
    out = tmp_path / "layers.json"
    assert cli.main([*map(str, artifacts), "--rounds", "2", "--out", str(out)]) == 0
    printed, report = capsys.readouterr().out, json.loads(out.read_text())
    assert report["rounds"] == 2
    for artifact, path, bits in zip(report["artifacts"], artifacts, (8, 4), strict=True):
        manifest = load(path).manifest
        assert artifact["path"] == str(path) and artifact["plan"] == f"int{bits}"
        assert [row["name"] for row in artifact["layers"]] == [row["name"] for row in manifest["layers"]]
        assert all(0 < row["best_us"] <= row["us"] and len(row["rounds_us"]) == 2 for row in artifact["layers"])
        assert all(f"| {row['name']} | {row['shape']} |" in printed for row in artifact["layers"])
        # 1e9 MAC/s is what stands in for the peak
        assert artifact["floor_us"] == pytest.approx(sum(row["macs"] for row in manifest["layers"]) / 1e3)
    assert {bits for row in report["artifacts"][1]["layers"] if (bits := row["bits"])} == {4, 8}


def test_manifests_without_shapes_are_refused(artifacts, any_cpu, tmp_path):
    manifest = json.loads((artifacts[0] / "manifest.json").read_text())
    for row in manifest["layers"]:
        del row["geometry"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "model.so").symlink_to(artifacts[0] / "model.so")
    with pytest.raises(BadInput, match="does not say its layers' shapes.*deploy it again"):
        cli.main([str(tmp_path), "--rounds", "1"])


def test_options_refuse_what_makes_no_sense(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["anything", "--rounds", "0"])
    assert caught.value.code == 2 and "--rounds" in capsys.readouterr().err
