"""CUDA text for the emulator's tests: small kernels in TVM's form, and one that TVM generates."""

import functools

import numpy as np
import pytest
from tvm.script import tirx as T

from hawqtvm.emulator import Emulated
from hawqtvm.emulator.lowered import Lowered, lower
from hawqtvm.errors import CheckFailed
from hawqtvm.qnn.packing import pack_words
from schedules.target import find_target

HEAD = """
#include <cstdint>
#include <type_traits>
#include <cuda.h>
#define uint unsigned int
#define uchar unsigned char
#define ushort unsigned short
"""


def text(parameters: str, body: str, name: str = "main_kernel", functions: str = "") -> str:
    """A kernel; ``parameters`` as "int* X, uchar* Y"."""
    head = f'extern "C" __global__ void __launch_bounds__(1024) {name}({parameters})'
    return f"{HEAD}{functions}\n{head};\n{head} {{\n{body}\n}}\n"


def run(parameters: str, body: str, threads=32, grid=1, functions: str = "", shared: int = 0, **arrays: np.ndarray):
    """Runs a small kernel on arrays that it changes."""
    block = threads if isinstance(threads, tuple) else (threads,)
    Emulated(text(parameters, body, functions=functions)).run("main_kernel", (grid,), block, arrays, shared)


def words(count: int) -> np.ndarray:
    return np.arange(count, dtype="int32")


def fails(wanted: str, *arguments, **more) -> str:
    """Runs a small kernel that must fail, with words that the message must have; returns the message."""
    with pytest.raises(CheckFailed) as caught:
        run(*arguments, **more)
    assert_says(str(caught.value), wanted)
    return str(caught.value)


def assert_says(message: str, wanted: str) -> None:
    """``wanted``: parts of the message in their order, between "..."."""
    at = 0
    for part in map(str.strip, wanted.split("...")):
        assert part in message[at:], f"{part!r} is not in {message!r}"
        at = message.index(part, at) + len(part)


ROWS, COLUMNS, DEPTH = 16, 32, 24  # of the product below; depth in words
SHIFT = {4: 6, 8: 10}
CHUNK, PITCH = 8, 12  # words of a stage, and of a row of it in shared memory


def _function(signature: str, emulated: str) -> str:
    return f"""
__forceinline__ __device__ {signature} {{
#ifdef HAWQTVM_EMULATOR
  {emulated}
#else
  asm("not for g++ %0" : : "r"(0));
#endif
}}
"""


def _product(bits: int):
    """PrimFunc ``Y[m, o] = clip(sum_k X[m, k] * W[o, k] >> SHIFT)``, packed, by Tensor Cores.

    A block of two warps makes 8 rows of 32 columns; both operands pass through shared memory a chunk at a time, in
    128-bit loads.
    """
    name = f"mma_u{bits}s{bits}"
    mma = _function(f"void {name}(int* c, int a, int b)", f"emulator::mma<{bits}, {bits}>(c, a, b);")
    held, most, shift = 32 // bits, 2**bits - 1, SHIFT[bits]
    lanes = held // 2  # that share a word of the result
    packed = f"""
__forceinline__ __device__ int packed(int low, int high) {{
  unsigned word = ((unsigned)low | (unsigned)high << {bits}) << (threadIdx.x % {lanes} * {2 * bits});
  for (int other = 1; other < {lanes}; other *= 2) word |= __shfl_xor_sync(0xffffffffu, word, other);
  return (int)word;
}}
"""

    @T.prim_func(s_tir=True)
    def product(x: T.handle, w: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        X = T.match_buffer(x, (ROWS * DEPTH,), "int32")
        W = T.match_buffer(w, (COLUMNS * DEPTH,), "int32")
        Y = T.match_buffer(y, (ROWS * COLUMNS // held,), "int32")
        block = T.env_thread("blockIdx.x")
        lane = T.env_thread("threadIdx.x")
        warp = T.env_thread("threadIdx.y")
        T.launch_thread(block, ROWS // 8)
        T.launch_thread(warp, 2)
        T.launch_thread(lane, 32)
        rows = T.decl_buffer((8 * PITCH,), "int32", scope="shared")
        columns = T.decl_buffer((COLUMNS * PITCH,), "int32", scope="shared")
        sums = T.decl_buffer((4,), "int32", scope="local")
        for i in T.unroll(4):
            sums[i] = 0
        for chunk in T.serial(DEPTH // CHUNK):
            T.tvm_storage_sync("shared")
            if warp * 32 + lane < 16:
                for v in T.vectorized(4):
                    rows[(warp * 32 + lane) // 2 * PITCH + lane % 2 * 4 + v] = X[
                        (block * 8 + (warp * 32 + lane) // 2) * DEPTH + chunk * CHUNK + lane % 2 * 4 + v
                    ]
            for v in T.vectorized(4):
                columns[(warp * 32 + lane) // 2 * PITCH + lane % 2 * 4 + v] = W[
                    (warp * 32 + lane) // 2 * DEPTH + chunk * CHUNK + lane % 2 * 4 + v
                ]
            T.tvm_storage_sync("shared")
            for step in T.unroll(CHUNK // 4):
                for tile in T.unroll(2):
                    T.evaluate(
                        T.cuda.func_call(
                            name,
                            T.address_of(sums[tile * 2]),
                            rows[lane // 4 * PITCH + step * 4 + lane % 4],
                            columns[(warp * 16 + tile * 8 + lane // 4) * PITCH + step * 4 + lane % 4],
                            source_code=mma,
                        )
                    )
        for tile in T.unroll(2):
            for i in T.unroll(2):
                sums[tile * 2 + i] = T.max(T.min(T.shift_right(sums[tile * 2 + i], shift), most), 0)
            sums[tile * 2] = T.cuda.func_call(
                "packed", sums[tile * 2], sums[tile * 2 + 1], source_code=packed, return_type="int32"
            )
            if lane % lanes == 0:
                Y[((block * 8 + lane // 4) * COLUMNS + warp * 16 + tile * 8 + lane % 4 * 2) // held] = sums[tile * 2]

    return product


@functools.cache
def product(bits: int) -> Lowered:
    """The product as TVM lowers it; parameters X, W, Y."""
    return lower(_product(bits), find_target("sm_75").tvm)


def product_arrays(bits: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """X, W, Y of the product, and what Y must become."""
    rng, held = np.random.default_rng(seed), 32 // bits
    x = rng.integers(0, 2**bits, (ROWS, DEPTH * held))
    half = 2 ** (bits - 1)
    w = np.minimum(rng.integers(-half, half + 1, (COLUMNS, DEPTH * held)), half - 1)  # about 0
    y = np.clip(x @ w.T >> SHIFT[bits], 0, 2**bits - 1)
    stored = [packed_words(codes, bits).ravel() for codes in (x, w, y)]
    return [*stored[:2], np.full_like(stored[2], 0x5A5A5A5A)], stored[2]


def packed_words(codes: np.ndarray, bits: int) -> np.ndarray:
    """``(rows, codes)`` -> int32 words along the last axis, element 0 in the low bits."""
    if bits == 4:
        return pack_words(codes, 1)
    return np.ascontiguousarray(codes.astype("uint8")).view("int32")
