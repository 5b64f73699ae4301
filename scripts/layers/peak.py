"""The most multiply-accumulates one thread of this machine does in a second: `vpdpbusd` on registers alone."""

from collections.abc import Callable
from time import perf_counter

import numpy as np
import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.errors import BadInput
from hawqtvm.runtime.cpu import cpu_features
from schedules.cpu.dot4 import dot4
from schedules.cpu.intrin import LANES, argument, load, scratch, store
from schedules.target import find_target

TARGET = "avx512-vnni"
CHAINS = 12  # independent sums, more than the instruction's latency times its ports
STEPS = 1 << 17
MACS = STEPS * CHAINS * 4 * LANES


def peak_kernel(steps: int = STEPS):
    """PrimFunc `(x uint8 (64,), w int8 (64,), out int32 (CHAINS * 16,))`: `out = steps * sum_j x[4l+j] * w[4l+j]`."""
    dot = dot4(find_target(TARGET), 2 * 255 * 128)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        x = argument("x", (4 * LANES,), "uint8")
        w = argument("w", (4 * LANES,), "int8")
        out = argument("out", (CHAINS * LANES,), "int32")
        codes, weights = T.bind(load(x, 0, "uint8x64")), T.bind(load(w, 0, "int8x64"))
        sums = [scratch(LANES, "int32") for _ in range(CHAINS)]
        for total in sums:
            store(total, 0, tirx.Broadcast(tirx.const(0, "int32"), LANES))
        with T.serial(steps):
            for total in sums:
                store(total, 0, dot.add(load(total, 0, "int32x16"), [codes], [weights]))
        for chain, total in enumerate(sums):
            store(out, chain * LANES, load(total, 0, "int32x16"))
    return builder.get()


def compile_peak() -> Callable[[], float]:
    """A function that runs the kernel once on this thread: MAC/s.  BadInput where the CPU lacks AVX512-VNNI."""
    target = find_target(TARGET)
    if not cpu_features().issuperset(target.features):
        raise BadInput("the peak is that of AVX512-VNNI, which this CPU lacks: run it on one that has it")
    run = tvm.compile(peak_kernel(), target=target.tvm)["main"]
    x = tvm.runtime.tensor(np.ones(4 * LANES, "uint8"))
    w = tvm.runtime.tensor(np.ones(4 * LANES, "int8"))
    out = tvm.runtime.tensor(np.zeros(CHAINS * LANES, "int32"))

    def measure() -> float:
        start = perf_counter()
        run(x, w, out)
        return MACS / (perf_counter() - start)

    return measure
