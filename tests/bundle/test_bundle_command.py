"""``python -m hawqtvm.tune --bundle`` and ``--results``, with nvcc where it is, and the whole way through."""

import json
import re
import zipfile
from pathlib import Path

import pytest

from hawqtvm.bundle import bundle
from hawqtvm.checkpoint import load_checkpoint
from hawqtvm.deploy import deploy
from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.runner.bundle import Bundle
from hawqtvm.tune.__main__ import main
from schedules.cuda import nvcc
from tests.bundle import standin
from tests.needs import needs_nvcc
from tests.nets import quantized_net


@needs_nvcc
def test_a_bundle_holds_cubins_of_the_architecture_and_no_text(tmp_path):
    made = bundle(quantized_net("vgg"), tmp_path / "vgg.pyz", 8, 2, target="sm_86", trials=1)
    held = Bundle(str(made.path))
    assert held.about["arch"] == "sm_86" and held.about["title"] == "VggNet at batch 2 for nvidia/nvidia-a10"
    assert made.workloads == made.candidates == len(held.workloads) and made.bytes == made.path.stat().st_size
    for workload in held.workloads:
        (candidate,) = workload["candidates"]
        cubin = held.blob(candidate["cubin"])
        machine, flags = int.from_bytes(cubin[18:20], "little"), int.from_bytes(cubin[48:52], "little")
        assert (cubin[:4], machine, flags >> 8 & 0xFF) == (b"\x7fELF", 190, 86)
        assert all(launch["kernel"].encode() in cubin for launch in candidate["launches"])
    with zipfile.ZipFile(made.path) as file:
        assert not any(b"__global__" in file.read(name) for name in file.namelist())


def test_what_both_bit_widths_share_is_packed_once(no_nvcc, tmp_path, monkeypatch):
    monkeypatch.setattr(nvcc, "cubin", lambda text, arch: text.encode())
    networks = [bundle(quantized_net("vgg"), tmp_path / f"{bits}", bits, target="sm_75", trials=1) for bits in (8, 4)]
    both = bundle(quantized_net("vgg"), tmp_path / "both", target="sm_75", trials=1)
    assert max(each.workloads for each in networks) < both.workloads < sum(each.workloads for each in networks)
    again = bundle(quantized_net("vgg"), tmp_path / "again", target="sm_75", trials=1)
    assert again.path.read_bytes() == both.path.read_bytes()


def test_a_candidate_that_does_not_compile_is_left_out(no_nvcc, tmp_path, monkeypatch, capfd):
    def refuses(text, arch, made=iter(range(99))):  # noqa: B008 (counts its calls)
        if next(made) == 0:
            raise BadInput("nvcc has no time")
        return b"cubin"

    monkeypatch.setattr(nvcc, "cubin", refuses)
    made = bundle(quantized_net("vgg"), tmp_path / "b", 8, target="sm_75", trials=2)
    assert made.failed == 1 and "does not compile: nvcc has no time" in capfd.readouterr().err
    monkeypatch.setattr(nvcc, "cubin", lambda text, arch: 1 // 0)
    with pytest.raises(CheckFailed, match="no candidate compiles"):
        bundle(quantized_net("vgg"), tmp_path / "c", 8, target="sm_75", trials=2)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "b"], "--bundle measures NVIDIA GPUs, not .*: give --target, such as nvidia/nvidia-t4"),
        (["--bundle", "b", "--target", "sm_75", "--trials", "0"], "trials 0"),
        (["--bundle", "b", "--target", "sm_75", "--batch", "0"], "batch 0"),
        (["--bundle", ".", "--target", "sm_75"], "it is a directory"),
        (["--bundle", "b", "--target", "sm_75", "--tracker", "h:1"], "exclude one another"),
        (["--bundle", "b", "--results", "r"], "exclude one another"),
        (["--results", "absent"], "cannot read the results absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(no_nvcc, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message):
        main(arguments)
    assert list(tmp_path.iterdir()) == []


def test_without_nvcc_nothing_begins(tmp_path, monkeypatch):
    def missing():
        raise BadInput("no nvcc found")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nvcc, "find_nvcc", missing)
    with pytest.raises(BadInput, match="no nvcc found"):
        main(["--bundle", "b", "--target", "sm_75"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_nvcc
def test_the_digits_from_bundle_to_artifact(driver, tmp_path, monkeypatch, capsys):
    """Everything but the GPU: its driver's stand-in runs the kernels in the emulator and says how long each takes."""
    monkeypatch.chdir(tmp_path)
    options = ["--bits", "hawqtvm/models/digits-mixed.json", "--batch", "8", "--target", "nvidia/nvidia-t4"]
    options[1] = str(Path(__file__).parents[2] / options[1])
    with monkeypatch.context() as patch:
        patch.setattr(nvcc, "cubin", standin.cubin)
        assert main([*options, "--trials", "3", "--bundle", "digits.pyz", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == "digits.pyz" and told["failed"] == 0

    times = {}
    for workload in Bundle("digits.pyz").workloads:
        for place, candidate in enumerate(workload["candidates"]):
            times[candidate["cubin"]] = ("right", 30.0 - 5 * place)
    path = standin.changed(Path("digits.pyz"), Path("timed.pyz"), times)
    ended = standin.run(driver, path, "--out", "results.jsonl")
    assert ended.returncode == 0, ended.stderr

    assert main(["--results", "results.jsonl"]) == 0
    shown = capsys.readouterr()
    assert "tuning log: tuning_logs/tesla-t4/nvidia-t4-1.jsonl" in shown.err
    assert len(re.findall("^Tesla T4 ", shown.out, re.MULTILINE)) == told["workloads"]

    quantized = load_checkpoint(Path("artifacts/digits.checkpoint"))[0]
    plan = json.loads(Path(options[1]).read_text())["bits"]
    built = deploy(quantized, plan, 8, "built", target="sm_75", measure=False)
    assert built.network["exact"] and built.network["verified"] == "executed in emulation"
    assert {row["config_source"] for row in built.layers} == {"measured"}
    (tmp_path / "tuning_logs").rename(tmp_path / "elsewhere")
    plain = deploy(quantized, plan, 8, "plain", target="sm_75", verify=False, measure=False)
    assert {row["config_source"] for row in plain.layers} == {"estimated"}
    tuned, estimated = (
        {row["name"]: row["config"] for row in json.loads(Path(name, "manifest.json").read_text())["layers"]}
        for name in ("built", "plain")
    )
    assert all(tuned[name] != estimated[name] for name in tuned), "the last candidate won everywhere"
