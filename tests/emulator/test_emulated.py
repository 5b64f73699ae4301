"""What a caller gives and gets, and what is left of it on the machine."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hawqtvm.emulator import Emulated
from hawqtvm.errors import BadInput, CheckFailed
from tests.emulator.texts import HEAD, text, words

COPY = text("int* X_ptr, int* __restrict__ Y_ptr", "Y_ptr[threadIdx.x] = X_ptr[threadIdx.x];")


def test_the_message_names_everything():
    body = "int* row = Y_ptr + blockIdx.y * 8;\nrow[threadIdx.y * 4 + threadIdx.x] = 1;"
    with pytest.raises(CheckFailed) as failed:
        Emulated(text("int* Y_ptr", body, "layer1_0_conv1_kernel")).run(
            "layer1_0_conv1_kernel", (1, 3), (4, 2), {"Y": words(20)}
        )
    assert re.fullmatch(
        r"layer1_0_conv1_kernel: block \(0, 2, 0\), thread \(0, 1, 0\) writes 4 bytes at byte 80 of the buffer Y "
        r"\(80 bytes\): out of bounds; at: row\[threadIdx.y \* 4 \+ threadIdx.x\] = 1;",
        str(failed.value),
    )


def test_the_same_each_time():
    race = Emulated(text("int* Y", "__shared__ int S[64];\nS[threadIdx.x % 9] = 1;\nY[threadIdx.x] = S[0];"))
    messages = set()
    for _ in range(3):
        with pytest.raises(CheckFailed) as failed:
            race.run("main_kernel", (1,), (64,), {"Y": words(64)})
        messages.add(str(failed.value))
    assert len(messages) == 1


def test_names_with_and_without_suffix():
    for names in (("X", "Y"), ("X_ptr", "Y_ptr")):
        x, y = words(32), np.zeros(32, "int32")
        Emulated(COPY).run("main_kernel", (1,), (32,), dict(zip(names, (x, y), strict=True)))
        np.testing.assert_array_equal(x, y)


def test_kernels_of_one_text_have_their_own_shared_memory():
    body = "__shared__ alignas(64) int S[40000];\nS[threadIdx.x] = {};\nY[threadIdx.x] = S[threadIdx.x];"
    both = Emulated(text("int* Y", body.format(1), "one") + text("int* Y", body.format(2), "two"))
    for number, name in enumerate(("one", "two"), 1):
        y = words(32)
        both.run(name, (1,), (32,), {"Y": y})
        assert (y == number).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kernel": "other"}, "no kernel other in the CUDA text, which has main_kernel"),
        ({"arguments": {"X": words(32)}}, "takes X, Y, not X"),
        ({"arguments": {"X": words(32), "Y": words(32).astype("int64")}}, "takes Y as int32, not int64 (32,)"),
        ({"arguments": {"X": words(32), "Y": words(32).astype("float32")}}, "takes Y as int32, not float32 (32,)"),
        ({"arguments": {"X": words(32), "Y": np.zeros(3, "uint8")}}, "takes Y as int32, not uint8 (3,)"),
        ({"grid": (0,)}, "extents"),
        ({"block": (1, 1, 1, 1)}, "extents"),
    ],
)
def test_bad_arguments(change, message):
    usual = {"kernel": "main_kernel", "grid": (1,), "block": (32,), "arguments": {"X": words(32), "Y": words(32)}}
    with pytest.raises(BadInput, match=re.escape(message)):
        Emulated(COPY).run(**(usual | change))


def test_a_block_that_no_gpu_has():
    arguments = {"X": words(32), "Y": words(32)}
    with pytest.raises(CheckFailed, match="blocks of 2048 threads, but it was compiled for 1024"):
        Emulated(COPY).run("main_kernel", (1,), (64, 32), arguments)
    large = text("int* X, int* Y", "__shared__ alignas(64) int S[65536];\nS[0] = 1;")
    with pytest.raises(CheckFailed, match="262144 bytes of shared memory, more than any GPU has"):
        Emulated(large).run("main_kernel", (1,), (32,), arguments)


@pytest.mark.parametrize(
    "source, message",
    [
        ("int main() {}", "has no kernel"),
        (text("float* X", ""), "buffers of integers only"),
        (text("int n", ""), "buffers of integers only"),
    ],
)
def test_bad_text(source, message):
    with pytest.raises(BadInput, match=message):
        Emulated(source)


def test_text_that_does_not_compile():
    asm = 'asm("mma.sync %0;" : : "r"(nonsense));'
    with pytest.raises(BadInput, match="g\\+\\+ does not take .*nonsense.*a branch for HAWQTVM_EMULATOR"):
        Emulated(text("int* Y", asm)).run("main_kernel", (1,), (32,), {"Y": words(1)})


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    fresh = text("int* Y", "Y[0] = 12345;")
    with pytest.raises(BadInput, match="install g\\+\\+"):
        Emulated(fresh).run("main_kernel", (1,), (1,), {"Y": words(1)})


def test_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    y = words(1)
    Emulated(text("int* Y", "Y[0] = 54321;")).run("main_kernel", (1,), (1,), {"Y": y})
    with pytest.raises(CheckFailed):
        Emulated(text("int* Y", "Y[1] = 54321;")).run("main_kernel", (1,), (1,), {"Y": y})
    assert y[0] == 54321
    assert not list(tmp_path.iterdir())


FOREVER = f"""
import signal
import numpy as np
from hawqtvm.emulator import Emulated
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
print("started", flush=True)
body = "for (int i = 0; i < 100000; ++i) Y[blockIdx.x] += i;"
text = '''{HEAD}extern "C" __global__ void k(int* Y) {{ ''' + body + " }}"
Emulated(text).run("k", (1,), (1,), {{"Y": np.zeros(1, "int32")}})
print("running", flush=True)
Emulated(text).run("k", (2**20,), (1,), {{"Y": np.zeros(2**20, "int32")}})
"""


@pytest.mark.parametrize("moment", ["started", "running"])
def test_an_interrupt_leaves_nothing(tmp_path, moment):
    """While g++ compiles, and while the kernel runs."""
    env = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", FOREVER], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.stdout.readline() != f"{moment}\n":
            assert process.poll() is None
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert not list(tmp_path.iterdir())
