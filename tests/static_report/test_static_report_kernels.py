"""Kernels as nvcc makes them for a T4: no spills, the intended Tensor Core instructions; and the whole report."""

import json

import pytest

from hawqtvm.errors import BadInput
from hawqtvm.qnn.formats import Format
from hawqtvm.qnn.model import Arithmetic
from hawqtvm.quantize import quantize_source
from hawqtvm.source import Source
from hawqtvm.static_report import __main__ as cli
from hawqtvm.static_report import sass
from hawqtvm.static_report.kernel import compiled, lowered
from hawqtvm.static_report.table import COLUMNS, markdown
from hawqtvm.tune.layers import distinct_workloads
from relay_passes.context import Context
from schedules.cuda import nvcc
from schedules.target import find_target
from schedules.workload import AvgPool2d, Conv2d, Dense, Elementwise, Epilogue, MaxPool2d, Requantized, Rescaled
from tests.needs import needs_nvcc
from tests.nets import quantized_net

T4 = find_target("sm_75")
NIBBLES, BYTES, WIDE = (Format(code, "HWNC", code == "uint4") for code in ("uint4", "uint8", "int16"))
IMMA = {4: "IMMA.8832.U4.S4", 8: "IMMA.8816.U8.S8"}

needs_disassembler = pytest.mark.skipif(nvcc.find_tool("nvdisasm") is None, reason="no nvdisasm, which shows SASS")


def conv2d(channels: int, size: int, out_channels: int, kernel: int, stride: int, bits: int, residual=False) -> Conv2d:
    """At batch 8; one that ends a residual block, or another."""
    x = NIBBLES if bits == 4 else BYTES
    epilogue = Epilogue(x, 0, *x.limits, 36)
    if residual:
        codes = Requantized(Rescaled(WIDE, 0, 2**30 + 999, 39), x, 0, *x.limits)
        epilogue = Epilogue(WIDE, 0, *WIDE.limits, 36, Rescaled(WIDE, 0, 2**30 + 5, 36), codes)
    given = Format("uint8") if channels == 3 else x
    sizes = ((kernel, kernel), (stride, stride), (kernel // 2,) * 4, (1, 1), 1)
    return Conv2d(8, channels, size, size, out_channels, *sizes, given, 0, bits, epilogue)


LAYERS = {
    "3x3, 8 bits": conv2d(64, 56, 64, 3, 1, 8),
    "3x3, 4 bits, residual": conv2d(256, 14, 256, 3, 1, 4, residual=True),
    "3x3 stride 2, 8 bits, residual": conv2d(128, 28, 256, 3, 2, 8, residual=True),
    "1x1, 8 bits": conv2d(1024, 14, 256, 1, 1, 8),
    "1x1 stride 2, 4 bits": conv2d(64, 56, 128, 1, 2, 4),
    "stem": conv2d(3, 224, 64, 7, 2, 8),
    "dense": Dense(8, 512, 1000, BYTES, 8),
}
OTHERS = {
    "max pool": MaxPool2d((8, 64, 112, 112), WIDE, (3, 3), (2, 2), (1,) * 4, (1, 1)),
    "average pool": AvgPool2d((8, 512, 7, 7), WIDE, 0, (7, 7), (7, 7), (0,) * 4, 2**30, 35, BYTES, 0, *BYTES.limits),
    "add": Elementwise((8, 64, 56, 56), (Rescaled(WIDE, 3, 2**30, 33),) * 2, NIBBLES, 0, *NIBBLES.limits),
}


@needs_nvcc
@pytest.mark.parametrize("name", [*LAYERS, *OTHERS])
def test_a_kernel(name):
    workload = (LAYERS | OTHERS)[name]
    binary = compiled(lowered(workload, T4).text, T4)
    assert binary.resources.spilled == binary.resources.stack == 0
    if binary.sass:
        assert set(binary.sass.tensor) == ({IMMA[workload.weight_bits]} if name in LAYERS else set())


@needs_nvcc
@needs_disassembler
@pytest.mark.parametrize("bits", [4, 8])
def test_a_loop_stays_a_loop(bits):
    """Its text has the products of one row of the kernel, once, and their operands come 128 bits at a time."""
    kernel = lowered(conv2d(64, 56, 64, 3, 1, bits), T4)
    config = kernel.choice.config
    assert not config.unroll
    cubin, _ = nvcc.cubin_and_messages(kernel.text, T4.arch)
    text = sass.disassemble(cubin)
    found = sass.read(text)
    products = config.frags_m * config.frags_n * 3 * config.chunk // config.warps_k
    assert found.tensor == {IMMA[bits]: products}
    assert found.loop.repeated and found.loop.tensor == products
    for instruction in ("LDSM.16.M88.4", "LDG.E.128", "STS.128"):
        assert instruction in text


@pytest.fixture(scope="module")
def small():
    return quantized_net("pooled output")


@needs_nvcc
def test_the_report_of_a_small_network(small, monkeypatch, tmp_path, capsys):
    """Where nothing disassembles, what only SASS tells is missing, and nothing else."""
    monkeypatch.setattr(sass, "find_tool", lambda name: None)
    monkeypatch.setattr(cli, "quantize_named", lambda name: small)
    out = tmp_path / "small.report"
    assert cli.main(["--models", "small", "--batch", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "small.report.json").read_text())
    assert printed.strip() == (tmp_path / "small.report.md").read_text().strip() == markdown(found).strip()
    assert [network["bits"] for network in found["networks"]] == [8, 4]
    for network in found["networks"]:
        assert network["sums"]["layers"] == len([layer for row in network["kernels"] for layer in row["layers"]])
        for row in network["kernels"]:
            assert row["spilled_bytes"] == 0 and row["registers"] > 0 and row["sass"] is None
            assert row["bound_us"] == max(us for us in row["parts_us"].values() if us is not None)
    lines = [line.split(" | ") for line in printed.splitlines() if line.startswith("| middle | Conv2d 3x3 8x8 8 ")]
    assert [len(line) for line in lines] == [len(COLUMNS)] * 2
    assert [line[list(COLUMNS).index("of loop")] for line in lines] == ["-", "-"]


def test_a_processor_has_no_report():
    with pytest.raises(BadInput, match="no NVIDIA GPU"):
        cli.main(["--target", "avx2"])


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("model", cli.MODELS)
def test_all_kernels(model, bits):
    quantized, _ = quantize_source(Source(model))
    found = distinct_workloads(Context(Arithmetic(quantized, quantized.bits(bits), "int16"), 8, T4, 1))
    for workload, layers in found.items():
        binary = compiled(lowered(workload, T4).text, T4)
        assert binary.resources.spilled == binary.resources.stack == 0, layers
        if binary.sass:
            width = getattr(workload, "weight_bits", None)
            assert set(binary.sass.tensor) == ({IMMA[width]} if width else set()), layers
