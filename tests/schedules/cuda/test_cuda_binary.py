"""Default kernels of ResNet-18 and ResNet-50 at batch 8 as nvcc makes them for a T4: spills and instructions."""

import re
import shutil
import subprocess

import pytest
from cases import WORDS

from hawqtvm.emulator.lowered import lower
from hawqtvm.qnn.formats import Format
from schedules.cuda import conv2d_direct, dense
from schedules.target import find_target
from schedules.workload import Conv2d, Dense, Epilogue, Requantized, Rescaled

NIBBLES, BYTES, WIDE = WORDS[:3]
T4 = find_target("sm_75")
IMMA = {4: "IMMA.8832.U4.S4", 8: "IMMA.8816.U8.S8"}
# channels, size, output channels, kernel, stride
RESNET18 = [(64, 56, 64, 3, 1), (64, 56, 128, 3, 2), (64, 56, 128, 1, 2), (128, 28, 128, 3, 1), (128, 28, 256, 3, 2)]
RESNET18 += [
    (128, 28, 256, 1, 2),
    (256, 14, 256, 3, 1),
    (256, 14, 512, 3, 2),
    (256, 14, 512, 1, 2),
    (512, 7, 512, 3, 1),
]
RESNET50 = [(64, 56, 64, 1, 1), (64, 56, 256, 1, 1), (256, 56, 64, 1, 1), (256, 56, 128, 1, 1), (128, 56, 128, 3, 2)]
RESNET50 += [
    (256, 56, 512, 1, 2),
    (128, 28, 512, 1, 1),
    (512, 28, 128, 1, 1),
    (512, 28, 256, 1, 1),
    (256, 28, 256, 3, 2),
]
RESNET50 += [(512, 28, 1024, 1, 2), (256, 14, 1024, 1, 1), (1024, 14, 256, 1, 1), (1024, 14, 512, 1, 1)]
RESNET50 += [(512, 14, 512, 3, 2), (1024, 14, 2048, 1, 2), (512, 7, 2048, 1, 1), (2048, 7, 512, 1, 1)]
STEM = (3, 224, 64, 7, 2)

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")


def layer(shape, bits: int, residual: bool) -> Conv2d:
    """A convolution that ends a residual block, or another."""
    channels, size, out_channels, kernel, stride = shape
    x = NIBBLES if bits == 4 else BYTES
    epilogue = Epilogue(x, 0, *x.limits, 36)
    if residual:
        codes = Requantized(Rescaled(WIDE, 0, 2**30 + 999, 39), x, 0, *x.limits)
        epilogue = Epilogue(WIDE, 0, *WIDE.limits, 36, Rescaled(WIDE, 0, 2**30 + 5, 36), codes)
    given = Format("uint8") if channels == 3 else x
    sizes, border = (kernel, kernel), (kernel // 2,) * 4
    return Conv2d(
        8, channels, size, size, out_channels, sizes, (stride, stride), border, (1, 1), 1, given, 0, bits, epilogue
    )


def compiled_for_t4(schedule, workload, folder) -> tuple[str, str]:
    """What ptxas says of the default kernel, and the binary."""
    text = lower(schedule.build(schedule.default(workload, T4, 1), workload, T4), T4.tvm).source
    (folder / "kernel.cu").write_text(text)
    command = ["nvcc", "-arch=sm_75", "-cubin", "-Xptxas", "-v", "-o", folder / "kernel.cubin", folder / "kernel.cu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr, folder / "kernel.cubin"


def instructions(cubin) -> str:
    tool = shutil.which("cuobjdump")
    if tool is None:
        pytest.skip("no cuobjdump on PATH")
    return subprocess.run([tool, "--dump-sass", cubin], capture_output=True, text=True, check=True).stdout


def assert_no_spills(report: str) -> None:
    assert re.search(r"Used (\d+) registers", report)
    assert re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report) == [
        ("0", "0", "0")
    ], report


@pytest.mark.parametrize("bits", [4, 8])
def test_a_layer(bits, tmp_path):
    report, cubin = compiled_for_t4(conv2d_direct, layer(RESNET18[6], bits, True), tmp_path)
    assert_no_spills(report)
    text = instructions(cubin)
    assert text.count(IMMA[bits]) >= 4
    assert text.count("LDSM") >= 1
    assert text.count("LDG.E.128") >= 2


@pytest.mark.slow
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", RESNET18 + RESNET50, ids=str)
def test_no_spills(shape, bits, residual, tmp_path):
    report, _ = compiled_for_t4(conv2d_direct, layer(shape, bits, residual), tmp_path)
    assert_no_spills(report)


@pytest.mark.slow
def test_stem_and_dense(tmp_path):
    for schedule, workload in [
        (conv2d_direct, layer(STEM, 8, False)),
        (dense, Dense(8, 512, 1000, BYTES, 8)),
        (dense, Dense(8, 2048, 1000, BYTES, 8)),
    ]:
        report, _ = compiled_for_t4(schedule, workload, tmp_path)
        assert_no_spills(report)
