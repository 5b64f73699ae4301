"""Barriers and warp collectives: that all come to them, and what they compute."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulator.texts import fails, packed_words, run, words

SHUFFLE, MMA_4 = "__shfl_xor_sync(~0u, 1, 1)", "emulator::mma<4, 4>(c, 1, 1)"


@pytest.mark.parametrize(
    "body, threads, wanted",
    [
        (
            "if (me < 40) return; __syncthreads();",
            64,
            "(40, 0, 0) waits at __syncthreads, but thread (0, 0, 0) has exited",
        ),
        ("if (me < 40) __syncthreads();", 64, "(0, 0, 0) waits at __syncthreads, but thread (40, 0, 0) has exited"),
        (f"if (me % 2) {SHUFFLE};", 32, "(1, 0, 0) waits at __shfl_sync, but thread (0, 0, 0) of its warp has exited"),
        (f"if (me != 7) {SHUFFLE};", 32, "(0, 0, 0) waits at __shfl_sync, but thread (7, 0, 0) of its warp has exited"),
        (
            f"if (me) {SHUFFLE}; else __syncthreads();",
            32,
            "(1, 0, 0) waits at __shfl_sync, but ... waits at __syncthreads",
        ),
        (f"if (me) __syncwarp(); else {SHUFFLE};", 32, "(1, 0, 0) comes to __syncwarp while ... waits at __shfl_sync"),
        (f"{MMA_4};", 48, "(32, 0, 0) comes to mma.m8n8k32 in a warp of 16 threads"),
        (f"if (me) {MMA_4};", 32, "(1, 0, 0) waits at mma.m8n8k32, but thread (0, 0, 0) of its warp has exited"),
        ("__shfl_sync(0xffu, 1, 0);", 32, "comes to __shfl_sync with the mask 0xff, which lacks lanes"),
        ("__syncwarp(0xffffu);", 32, "comes to __syncwarp with the mask 0xffff, which lacks lanes"),
    ],
)
def test_not_all_come(body, threads, wanted):
    fails(wanted, "int* Y", f"int me = threadIdx.x, c[2] = {{0, 0}};\n{body}", threads=threads, Y=words(1))


@pytest.mark.parametrize("wait", ["__syncthreads();", "__syncwarp();", f"Y[0] = {SHUFFLE};"])
def test_the_line_at_which_a_thread_waits(wait):
    body = f"if (threadIdx.x == 0) {{\n{wait}\n}}\nif (threadIdx.x == 31) Y[31] = 1;"
    assert fails("(0, 0, 0) waits at", "int* Y", body, Y=words(32)).endswith(f"; at: {wait}")


def test_all_come_to_another_barrier():
    y = words(64)
    run("int* Y", "if (Y[0] == 0) __syncthreads(); else __syncwarp();\n__syncthreads();\nY[threadIdx.x] = 1;", 64, Y=y)
    assert (y == 1).all()


INTRINSICS = """
  int me = threadIdx.x, x = X[me];
  Y[me] = __shfl_xor_sync(~0u, x, 5);
  Y[me + 32] = __shfl_sync(~0u, x, me * 3, 8);
  Y[me + 64] = __shfl_down_sync(~0u, x, 3, 16);
  Y[me + 96] = __shfl_up_sync(~0u, x, 2);
  Y[me + 128] = (int)__byte_perm(x, X[me + 32], X[me + 64] & 0xffff);
  Y[me + 160] = __dp4a(x, X[me + 32], X[me + 64]);
  Y[me + 192] = __dp4a((unsigned)x, X[me + 32], X[me + 64]);
  Y[me + 224] = __mulhi(x, X[me + 32]);
  Y[me + 256] = (int)__umulhi(x, X[me + 32]);
  Y[me + 288] = min(x, X[me + 32]);
  Y[me + 320] = (int)max((int64_t)x, (int64_t)X[me + 32]);
  Y[me + 352] = (int)(__shfl_xor_sync(~0u, (int64_t)x << 20, 1) >> 20);
"""


def byte_perm(x: int, y: int, selector: int) -> int:
    stored = (x % 2**32).to_bytes(4, "little") + (y % 2**32).to_bytes(4, "little")
    picked = [selector >> 4 * i & 15 for i in range(4)]
    return int.from_bytes(bytes(stored[p & 7] if p < 8 else 255 * (stored[p & 7] >> 7) for p in picked), "little")


def bytes_of(array: np.ndarray, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(array).view(dtype).reshape(-1, 4).astype("int64")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["any", "ends"]))
def test_intrinsics(seed, kind):
    rng = np.random.default_rng(seed)
    x = rng.integers(-(2**31), 2**31, 96) if kind == "any" else rng.choice([-(2**31), 2**31 - 1, -1, 0], 96)
    x, y = x.astype("int32"), np.zeros(384, "int32")
    run("int* X, int* Y", INTRINSICS, X=x, Y=y)
    lane, a, b, c = np.arange(32), *x.reshape(3, 32)
    wide = [v.astype("int64") for v in (a, b, c)]
    wanted = [
        a[lane ^ 5],
        a[lane // 8 * 8 + lane * 3 % 8],
        a[np.where(lane % 16 + 3 < 16, lane + 3, lane)],
        a[np.where(lane >= 2, lane - 2, lane)],
        [byte_perm(*map(int, v)) for v in zip(a, b, c, strict=True)],
        (bytes_of(a, "int8") * bytes_of(b, "int8")).sum(1) + wide[2],
        (bytes_of(a, "uint8") * bytes_of(b, "int8")).sum(1) + wide[2],
        wide[0] * wide[1] >> 32,
        [int(p) * int(q) >> 32 for p, q in zip(a.view("uint32"), b.view("uint32"), strict=True)],
        np.minimum(a, b),
        np.maximum(a, b),
        a[lane ^ 1],
    ]
    for number, (got, want) in enumerate(zip(y.reshape(12, 32), wanted, strict=True)):
        np.testing.assert_array_equal(got.view("uint32"), np.asarray(want, "int64") % 2**32, err_msg=str(number))


MMA = """
  int me = threadIdx.x;
  int c[2];
  c[0] = C[me * 2];
  c[1] = C[me * 2 + 1];
  emulator::mma<{0}, {0}>(c, A[me], B[me]);
  C[me * 2] = c[0];
  C[me * 2 + 1] = c[1];
"""


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([4, 8]), st.integers(0, 2**32), st.sampled_from(["any", "ends"]))
def test_mma(bits, seed, kind):
    """Lane 4r+k has word k of A's row r and of B's column r, and C's row r from column 2k (PTX, mma.m8n8k16, k32)."""
    rng, depth, half = np.random.default_rng(seed), 128 // bits, 2 ** (bits - 1)
    draw = {"any": rng.integers, "ends": lambda low, high, shape: rng.choice([low, high - 1], shape)}[kind]
    a, b, c = draw(0, 2 * half, (8, depth)), draw(-half, half, (8, depth)), draw(-(2**31), 2**31, (8, 8))
    held = c.astype("int32")
    run("int* A, int* B, int* C", MMA.format(bits), A=packed_words(a, bits), B=packed_words(b, bits), C=held)
    np.testing.assert_array_equal(held, (a @ b.T + c).astype("int32"))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix(count):
    """Matrix m's row r, named by lane 8m+r, goes word by word to lanes 4r to 4r+3."""
    rows = np.random.default_rng(count).permutation(32)
    x, y = words(128), np.zeros((32, count), "int32")
    body = f"""
  __shared__ alignas(64) int S[128];
  int me = threadIdx.x;
  int d[{count}];
  *(int4*)(S + me * 4) = *(int4*)(X + me * 4);
  __syncthreads();
  emulator::ldmatrix<{count}>(d, S + R[me] * 4);
  for (int i = 0; i < {count}; ++i) Y[me * {count} + i] = d[i];"""
    run("int* X, int* R, int* Y", body, X=x, R=rows.astype("int32"), Y=y)
    matrices = x.reshape(32, 4)[rows][: 8 * count].reshape(count, 32)
    np.testing.assert_array_equal(y, matrices.T)


@pytest.mark.parametrize(
    "row, wanted",
    [
        ("S + me", "thread (1, 0, 0) reads 16 bytes at byte 4 of the shared array S (1024 bytes): not aligned to 16"),
        ("S + me * 4 + 192", "thread (16, 0, 0) reads 16 bytes at byte 1024 of the shared array S"),
        ("S + me * 4 + 128", "which the block has not written"),
        ("X + me * 4", "thread (0, 0, 0) loads 16 bytes ... buffer X (512 bytes): ldmatrix reads shared memory only"),
    ],
)
def test_ldmatrix_reads_what_it_must_not(row, wanted):
    last = 256 if "192" in row else 128
    body = f"""
  __shared__ alignas(64) int S[256];
  int me = threadIdx.x;
  int d[4];
  for (int i = me; i < {last}; i += 32) S[i] = i;
  __syncthreads();
  emulator::ldmatrix<4>(d, {row});
  X[me] = d[0];"""
    fails(wanted, "int* X", body, X=words(128))
