"""The report's arithmetic, by cases computed by hand."""

from pathlib import Path

import pytest

from hawqtvm.errors import CheckFailed
from hawqtvm.qnn.formats import Format
from hawqtvm.static_report import ptxas, sass
from hawqtvm.static_report.bounds import Bound, bound, instruction_us, tops
from hawqtvm.static_report.occupancy import Occupancy, occupancy
from hawqtvm.static_report.published import published_us
from hawqtvm.static_report.report import sums
from hawqtvm.static_report.sass import Loop
from hawqtvm.static_report.work import Work, read_share, work
from schedules.cuda import conv2d_direct
from schedules.cuda.conv2d_space import Config
from schedules.dispatch import Choice
from schedules.target import find_target
from schedules.workload import Conv2d, Dense, Epilogue, MaxPool2d

T4, A100, H100 = (find_target(arch) for arch in ("sm_75", "sm_80", "sm_90"))
SAMPLES = Path(__file__).with_name("samples")
BYTES = Format("uint8", "HWNC")


def conv2d(kernel=1, stride=1, bits=8, channels=64, out_channels=128, size=56, batch=8) -> Conv2d:
    x = BYTES if bits == 8 else Format("uint4", "HWNC", packed=True)
    sizes = ((kernel, kernel), (stride, stride), (kernel // 2,) * 4, (1, 1), 1)
    return Conv2d(batch, channels, size, size, out_channels, *sizes, x, 0, bits, Epilogue(x, 0, *x.limits, 36))


@pytest.mark.parametrize(
    ("target", "threads", "registers", "shared", "wanted"),
    [
        # 112 registers a thread: 18 warps fit, of which 16 can be dealt to four schedulers
        (T4, 128, 111, 15616, Occupancy(4, "registers")),
        (T4, 64, 100, 0, Occupancy(8, "registers")),
        (T4, 128, 32, 22000, Occupancy(2, "shared memory")),
        (T4, 512, 32, 0, Occupancy(2, "threads")),
        (T4, 64, 31, 0, Occupancy(16, "blocks")),
        # 1 KiB of each block is the system's
        (A100, 256, 64, 50 * 1024, Occupancy(3, "shared memory")),
        (A100, 64, 16, 40 * 1024, Occupancy(4, "shared memory")),
        (A100, 64, 16, 41 * 1024, Occupancy(3, "shared memory")),
    ],
)
def test_occupancy(target, threads, registers, shared, wanted):
    assert occupancy(target, threads, registers, shared) == wanted


def test_what_binds_is_the_largest_part():
    assert bound(Work(130_000_000, 8, 160_000), 1, None, T4) == Bound(1.0, 0.5, None)
    assert bound(Work(130_000_000, 4, 320_000), 1, None, T4) == Bound(0.5, 1.0, None)
    assert bound(Work(0, None, 640_000), 1, None, T4).us == 2.0
    assert Bound(1.0, 2.0, None).binds == "bytes"
    assert Bound(1.0, 0.5, None).binds == "operations"
    assert Bound(1.0, 2.0, 3.0).binds == "instructions" and Bound(1.0, 2.0, 3.0).us == 3.0


def test_where_4_bits_are_unpacked_they_take_two_products():
    assert [tops(target, 4) / tops(target, 8) for target in (T4, A100, H100)] == [2, 2, 0.5]


def test_instructions_of_the_sm_with_most_blocks():
    cycle = 40 * 2048 / 130e6  # us: 40 SMs with one product of 2048 operations each
    assert instruction_us(1000, 40, None, T4) == pytest.approx(1000 * cycle)
    assert instruction_us(1000, 41, None, T4) == pytest.approx(2000 * cycle)
    # four schedulers issue ten instructions for each product in two and a half cycles
    assert instruction_us(1000, 40, Loop(120, 10, 100, True), T4) == pytest.approx(2500 * cycle)
    assert instruction_us(1000, 40, Loop(16, 10, 16, True), T4) == pytest.approx(1000 * cycle)
    assert instruction_us(1000, 108, None, A100) == pytest.approx(500 * 108 * 4096 / 624e6)


@pytest.mark.parametrize(
    ("workload", "share"),
    [
        (conv2d(1, 1), 1),
        (conv2d(1, 2), 1 / 4),
        (conv2d(3, 2), 1),
        (conv2d(3, 1, size=7), 1),
        (MaxPool2d((8, 64, 5, 5), BYTES, (2, 2), (2, 2), (0,) * 4, (1, 1)), (4 / 5) ** 2),
        (MaxPool2d((8, 64, 9, 9), BYTES, (2, 2), (3, 4), (0,) * 4, (2, 1)), 6 / 9 * 4 / 9),
        (Dense(8, 64, 10, BYTES, 8), 1),
    ],
)
def test_pixels_that_are_read(workload, share):
    assert read_share(workload) == pytest.approx(share)


def test_work_of_a_strided_convolution():
    workload, config = conv2d(1, 2), Config(1, 2, 1, 2, 4, 2, 2, False, 4, True, False)
    choice = Choice(conv2d_direct, config, workload)
    found = work(choice, conv2d_direct.build(config, workload, T4), 784, T4)
    out = 28 * 28 * 8 * 128
    assert found.operations == 2 * out * 64 and found.bits == 8
    assert found.bytes == 56 * 56 * 8 * 64 // 4 + 64 * 128 + 3 * 128 * 4 + out
    # two chunks of two quads: two pixels of eight images, and the weights of 64 channels
    assert found.asked == 784 * 2 * (2 * 8 + 64) * 32 + out
    assert found.products == 2 * 8 * 4


def test_published_times_are_of_the_same_convolution_on_the_same_gpu():
    workload = conv2d(3, 1, 4, 64, 64)
    assert published_us("resnet18", workload, T4) == 62.44
    assert published_us("resnet50", workload, T4) == 68.53
    assert published_us("digits", workload, T4) is None
    assert published_us("resnet18", workload, A100) is None
    assert published_us("resnet18", conv2d(3, 1, 4, 64, 64, batch=1), T4) is None
    assert published_us("resnet18", Dense(8, 64, 10, BYTES, 8), T4) is None


def test_sums_are_over_layers():
    rows = [
        {"layers": ["a", "b"], "bound_us": 3.0, "binds": "bytes", "published_us": 10.0},
        {"layers": ["c"], "bound_us": 5.0, "binds": "operations", "published_us": None},
        {"layers": ["d"], "bound_us": 1.0, "binds": "bytes", "published_us": 2.0},
    ]
    assert sums(rows) == {
        "layers": 4,
        "kernels": 3,
        "bound_us": 12.0,
        "binding_us": {"bytes": 7.0, "operations": 5.0},
        "published_layers": 3,
        "published_us": 22.0,
        "bound_of_published_us": 7.0,
    }


def test_ptxas():
    assert ptxas.resources((SAMPLES / "looped.ptxas").read_text()) == ptxas.Resources(19, 0, 0, 0)
    spilling = """ptxas info    : Function properties for main_kernel
    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 16 bytes cumulative stack size, 27648 bytes smem, 376 bytes cmem[0]
"""
    assert ptxas.resources(spilling) == ptxas.Resources(255, 16, 32, 27648)
    for text in ("", spilling + spilling):
        with pytest.raises(CheckFailed, match="not one of each"):
            ptxas.resources(text)


def test_sass():
    """An outer loop, an inner one with two products and thirty instructions that a branch skips, and one without."""
    text = (SAMPLES / "looped.sass").read_text()
    assert sass.read(text) == sass.Sass(82, {"IMMA.8832.U4.S4": 2}, Loop(47, 2, 17, True))
    # the branch over the two products skips nothing that counts
    straight = text.replace("BRA `(.L_x_5)", "EXIT").replace("BRA `(.L_x_6)", "EXIT")
    assert sass.read(straight).loop == Loop(82, 2, 82 - 30 - 10, False)
    without = text.replace("IMMA.8832.U4.S4", "IADD3")
    assert sass.read(without) == sass.Sass(82, {}, None)
