"""`scripts/silicon` as far as it goes without a GPU: kernels on the driver's stand-in, and what the rest adds up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hawqtvm.bundle.pack import candidates  # noqa: E402
from hawqtvm.errors import BadInput, CheckFailed  # noqa: E402
from hawqtvm.qnn.model import Arithmetic  # noqa: E402
from hawqtvm.runner.bundle import Bundle  # noqa: E402
from hawqtvm.runner.driver import Facts  # noqa: E402
from hawqtvm.tune.layers import distinct_workloads  # noqa: E402
from relay_passes.context import Context  # noqa: E402
from schedules.plain_json import to_json  # noqa: E402
from schedules.target import find_target  # noqa: E402
from schedules.tuning_key import tuning_key  # noqa: E402
from schedules.tuning_log import GpuDevice, Record, line, log_path, read  # noqa: E402
from scripts.gpu import __main__ as cli  # noqa: E402
from scripts.gpu import networks, peers  # noqa: E402
from tests.bundle import standin  # noqa: E402
from tests.bundle.workloads import FEW  # noqa: E402
from tests.nets import quantized_net  # noqa: E402

T4 = find_target("sm_75")
FACTS = Facts("Tesla T4", "sm_75", 40, 4 << 20)


def silicon(driver, folder, *arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "scripts.gpu", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env=os.environ | {"LD_LIBRARY_PATH": str(driver), "PYTHONPATH": str(ROOT)} | environment,
    )


def test_a_bundle_is_run_and_its_results_logged(driver, few, tmp_path):
    ended = silicon(driver, tmp_path, "--bundles", few, "--parts", "kernels")
    assert ended.returncode == 0, ended.stderr
    assert len(list(read(tmp_path / "tuning_logs/tesla-t4/nvidia-t4-1.jsonl"))) == 2 * FEW
    report = json.loads((tmp_path / "tuning_logs/tesla-t4/networks.json").read_text())
    assert report["device"]["name"] == "Tesla T4" and report["wrong"] == report["skipped"] == {}
    assert report["kernels"][0]["bundle"] == few.name


def test_a_wrong_kernel_fails_once_all_is_logged(driver, few, tmp_path):
    bad = Bundle(str(few)).workloads[1]["candidates"][0]["cubin"]
    bundle = standin.changed(few, tmp_path / "b.pyz", {bad: (standin.WRONG, 1.0)})
    ended = silicon(driver, tmp_path, "--bundles", bundle, "--parts", "kernels")
    assert ended.returncode == 1 and "error: kernels: " in ended.stderr and "has kernels that are wrong" in ended.stderr
    assert len(list(read(tmp_path / "tuning_logs/tesla-t4/nvidia-t4-1.jsonl"))) == 2 * FEW


def test_without_a_gpu_it_is_one_line(driver, tmp_path):
    ended = silicon(driver, tmp_path, STANDIN_INIT="100")
    assert ended.returncode == 2 and ended.stderr == "error: no NVIDIA GPU can be used: cuInit: CUDA_ERROR_NO_DEVICE\n"


def test_parts_that_cannot_be_had_are_skipped_with_a_reason(tmp_path, monkeypatch, capsys):
    class NoKernels:
        def __init__(self):
            self.facts, self.version = lambda index: FACTS, lambda: "12.4"

    def refuse(options, facts):
        raise BadInput("no nvcc found")

    def fail(options, facts):
        raise CheckFailed("a tensor differs")

    monkeypatch.setattr(cli, "Driver", NoKernels)
    monkeypatch.setattr(cli, "_kernels", refuse)
    monkeypatch.setattr(cli, "_networks", fail)
    monkeypatch.setitem(cli.PARTS, "peers", ("no_such_package",))
    with pytest.raises(CheckFailed, match="networks: a tensor differs"):
        cli.main(["--logs", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "skipped: kernels: no nvcc found" in shown and "skipped: peers: no_such_package is not installed" in shown
    report = json.loads((tmp_path / "tesla-t4" / "networks.json").read_text())
    assert set(report["skipped"]) == {"kernels", "peers"} and report["wrong"] == {"networks": "a tensor differs"}


def test_networks_stand_beside_their_layers_and_unpacked_ones_say_so():
    row = {"model": "resnet18", "verified": "run on it", "gpu_ms": 1.0, "call_ms": 1.5, "layers_ms": None}
    rows = [row | {"bits": 8, "note": "-"}, row | {"bits": 4, "note": networks.UNPACKED}]
    peer = {"model": "resnet18", "what": "PyTorch float16, channels last", "ms": 2.0}
    told = cli.show({"networks": rows, "peers": [peer], "skipped": {}}).splitlines()
    assert told[2].split() == ["resnet18", "INT8", "1.000", "1.500", "-", "-"]
    assert networks.UNPACKED in told[3] and "2.000" in told[4]


def test_the_layers_sum_is_of_what_was_measured(tmp_path, monkeypatch):
    model = quantized_net("vgg")
    found = distinct_workloads(Context(Arithmetic(model, model.bits(8)), 2, T4, 1))
    found = {workload: [*layers, "one more of its kind"] for workload, layers in found.items()}
    monkeypatch.setattr(networks, "distinct_workloads", lambda context: found)
    device, path = GpuDevice("Tesla T4", 40), log_path(tmp_path, GpuDevice("Tesla T4", 40), T4.name, 1)
    path.parent.mkdir()
    lines, total = [], 0.0
    for place, (workload, layers) in enumerate(found.items(), 1):
        (choice,) = candidates(workload, T4, 1)
        key, config = tuning_key(choice.workload), to_json(choice.config)
        made = Record(device, T4.name, 1, key, choice.name, config, ((float(place),),), None, "now", "0")
        lines.append(line(made))
        total += place * len(layers) / 1e3
    path.write_text("".join(lines))
    assert networks.layers_ms(model, 8, 2, T4, tmp_path) == pytest.approx(total)
    path.write_text("".join(lines[1:]))
    assert networks.layers_ms(model, 8, 2, T4, tmp_path) is None


def test_torch_without_a_gpu_is_a_reason(monkeypatch):
    monkeypatch.setattr(peers.torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="does not use the GPU"):
        peers.peer("digits", 1)
