"""Artifacts for a GPU, built and verified on a machine that need not have one."""

import base64
import json
import re

import pytest
import tvm

import hawqtvm.compile
from hawqtvm.compile import add_input_quantizer
from hawqtvm.deploy import deploy, show
from hawqtvm.emulator.lowered import lower
from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.qnn.model import Quantization
from hawqtvm.quantize import quantize_source
from hawqtvm.runtime import gpu, load
from hawqtvm.source import Source
from hawqtvm.verify import verify
from schedules.cuda import conv2d_direct, nvcc
from schedules.target import find_target
from tests.needs import needs_compiler, needs_nvcc
from tests.nets import quantized_net
from tests.relay_passes.stages import mixed_plan


@pytest.fixture(scope="module")
def vgg():
    return quantized_net("vgg")


@pytest.fixture(scope="module", autouse=True)
def no_gpu():
    """Nor is the one used that may be there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "gpus", lambda: ())
        yield


@pytest.fixture(scope="module")
def built(vgg, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "artifact"
    return deploy(vgg, {"features.3": 4}, 3, out, target="sm_75")


def cubins(library: bytes) -> list[bytes]:
    """Those in a library, as it stores them."""
    start = re.escape(base64.b64encode(b"\x7fELF\x02")[:6])
    return [base64.b64decode(match[0]) for match in re.finditer(start + rb"[A-Za-z0-9+/=]*", library)]


@needs_nvcc
@needs_compiler
def test_the_library_holds_a_cubin_of_the_architecture_and_no_text(built):
    library = (built.path / "model.so").read_bytes()
    assert b"__global__" not in library
    (cubin,) = cubins(library)
    machine, flags = int.from_bytes(cubin[18:20], "little"), int.from_bytes(cubin[48:52], "little")
    assert machine == 190  # EM_CUDA
    assert flags >> 8 & 0xFF == 75
    assert b"sm_75" in cubin


@needs_nvcc
@needs_compiler
def test_it_is_verified_in_emulation_and_says_so(built):
    assert built.network["exact"] and built.network["verified"] == "executed in emulation"
    assert built.network["ms"] is None and built.network["accuracy_int"] is None
    assert "yes, every code of every tensor, executed in emulation" in show(built)
    manifest = json.loads((built.path / "manifest.json").read_text())
    assert manifest["measured"] == built.network
    target = {"name": "nvidia/nvidia-t4", "device": "cuda", "arch": "sm_75", "features": ["sse2"]}
    assert manifest["target"] == target
    assert manifest["threads"] == 1 and manifest["activations"] == "words"
    layouts = [row["output"]["layout"] for row in manifest["layers"]]
    assert layouts == ["HWNC"] * (len(layouts) - 1) + ["NCHW"]


@needs_nvcc
@needs_compiler
def test_it_runs_on_no_other_machine(built):
    for run in (load, verify):
        with pytest.raises(BadInput, match="needs an NVIDIA GPU of sm_75, this machine has none"):
            run(built.path)


@needs_nvcc
@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4, "mixed"])
@pytest.mark.parametrize("model", ["resnet18", "resnet50"])
def test_a_whole_network_at_full_size(model, bits, tmp_path):
    """224x224, batch 8."""
    quantized, _ = quantize_source(Source(model))
    plan = mixed_plan(quantized, 0) if bits == "mixed" else bits
    done = deploy(quantized, plan, 8, tmp_path / "artifact", target="nvidia/nvidia-t4")
    assert done.network["exact"] and done.network["verified"] == "executed in emulation"


@needs_nvcc
@needs_compiler
def test_a_wrong_weight_is_found_in_emulation(vgg, tmp_path, monkeypatch):
    right = conv2d_direct.constants

    def wrong(config, workload, weight, *rest):
        weight = weight.copy()
        weight.flat[5] ^= 1
        return right(config, workload, weight, *rest)

    monkeypatch.setattr(conv2d_direct, "constants", wrong)
    with pytest.raises(CheckFailed, match=r"layer features.0 is the first that differs .* PyTorch has"):
        deploy(vgg, 8, 1, tmp_path / "artifact", target="sm_75")
    assert not (tmp_path / "artifact").exists()


@needs_nvcc
def test_unverified_is_not_shown_as_done(vgg, tmp_path, capfd):
    done = deploy(vgg, 4, 1, tmp_path / "artifact", target="nvidia/nvidia-a100", verify=False)
    assert done.network["exact"] is done.network["verified"] is None
    assert "neither verified nor measured" in capfd.readouterr().err
    (cubin,) = cubins((done.path / "model.so").read_bytes())
    assert b"sm_80" in cubin


def test_without_nvcc_the_remedy_is_named(vgg, tmp_path, monkeypatch):
    nvcc.find_nvcc.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(nvcc.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(hawqtvm.compile.cc, "get_cc", lambda: "cc")
    with pytest.raises(BadInput, match=r"no nvcc found.*pip install 'hawqtvm\[cuda\]'"):
        deploy(vgg, 8, 1, tmp_path / "artifact", target="sm_75")
    assert list(tmp_path.iterdir()) == []
    nvcc.find_nvcc.cache_clear()


@pytest.mark.parametrize("where", ["CUDA_HOME", "PATH", "packages"])
def test_nvcc_is_found(tmp_path, monkeypatch, where):
    compiler = tmp_path / ("cu13/bin/nvcc" if where == "packages" else "bin/nvcc")
    compiler.parent.mkdir(parents=True)
    compiler.write_text("")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(compiler.parent) if where == "PATH" else str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path) if where == "CUDA_HOME" else "/nowhere")
    package = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]}) if where == "packages" else None
    monkeypatch.setattr(nvcc.importlib.util, "find_spec", lambda name: package)
    nvcc.find_nvcc.cache_clear()
    assert nvcc.find_nvcc() == compiler
    nvcc.find_nvcc.cache_clear()


@needs_nvcc
def test_what_nvcc_refuses_is_one_line():
    with pytest.raises(BadInput, match="cannot compile for sm_75") as caught:
        nvcc.cubin("int f( {", "sm_75")
    assert "\n" not in str(caught.value)


def test_images_are_quantized_on_the_gpu_as_numpy_does_it():
    """Ties between codes go to the even one; the float kernel stands before the program and is not emulated."""
    module = add_input_quantizer(tvm.IRModule(), Quantization("uint8", 0.5, 10), (2, 3, 9, 17), on_gpu=True)
    assert "nearbyintf(" in lower(module["quantize_images"], find_target("sm_75").tvm).source
