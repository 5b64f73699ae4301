"""Accesses that only luck orders: found whatever order the emulator runs the threads in."""

import numpy as np
import pytest

from tests.emulator.texts import fails, run, words

S = "__shared__ alignas(64) int S[256];\n"
ME = "int me = threadIdx.x;\n"
FILLED = S + ME + "S[me] = 0; S[me + 128] = 0; __syncthreads();\n"


@pytest.mark.parametrize(
    "body, wanted",
    [
        # between warps, with the reader's warp last, or first
        (
            "S[me] = me; Y[me] = S[me & 31];",
            "(32, 0, 0) reads ... which thread (0, 0, 0) wrote with no barrier between",
        ),
        (
            "S[me] = me; Y[me] = S[me ^ 32];",
            "(32, 0, 0) writes ... which thread (0, 0, 0) read with no barrier between",
        ),
        (
            "S[me] = me; __syncwarp(); Y[me] = S[me & 31];",
            "reads ... which thread (31, 0, 0) wrote with no barrier between",
        ),
        ("S[me % 64] = me;", "(64, 0, 0) writes ... which thread (0, 0, 0) wrote with no barrier between"),
        (
            "if (me % 127 == 0) Y[me] = S[0]; if (me == 127) S[0] = 1;",
            "(127, 0, 0) writes ... which other threads read",
        ),
        # within a warp
        ("S[me] = me; Y[me] = S[me & ~1];", "(1, 0, 0) reads ... which thread (0, 0, 0) wrote with no barrier between"),
        ("S[me] = me; __shfl_xor_sync(~0u, me, 1); Y[me] = S[me ^ 1];", "wrote with no barrier between"),
        (
            "Y[me] = S[me ^ 1]; __shfl_xor_sync(~0u, me, 1); S[me] = 2;",
            "(31, 0, 0) writes ... which thread (30, 0, 0) read",
        ),
        (
            "Y[me] = S[me & ~1]; __shfl_xor_sync(~0u, me, 1); S[me] = 1;",
            "(0, 0, 0) writes ... which other threads read",
        ),
    ],
)
def test_a_race_in_shared_memory(body, wanted):
    fails(wanted, "int* Y", FILLED + body, threads=128, Y=words(128))


@pytest.mark.parametrize(
    "body",
    [
        "S[me] = me; __syncthreads(); Y[me] = S[me ^ 96];",
        "S[me] = me; __syncwarp(); Y[me] = S[me ^ 31];",
        "S[me] = me; __syncwarp(); int v = S[me ^ 1]; __syncwarp(); S[me ^ 31] = v; Y[me] = v;",
        "for (int i = 0; i < 3; ++i) { __syncthreads(); S[me ^ i] = i; __syncthreads(); Y[me] = S[me ^ 7]; }",
        "S[me] = me; Y[me] = S[me]; S[me] += 1;",
    ],
)
def test_order_is_no_race(body):
    run("int* Y", S + ME + body, threads=128, Y=words(128))


def test_bytes_of_one_word_are_apart():
    y = np.zeros(32, "int32")
    run("int* Y", S + ME + "((uchar*)S)[me] = me; __syncthreads(); if (me < 32) Y[me] = S[me];", threads=128, Y=y)
    np.testing.assert_array_equal(y, np.arange(128, dtype="uint8").view("int32"))
    body = FILLED + "((uchar*)S)[me] = me; Y[me] = S[0];"
    fails(
        "(1, 0, 0) writes 1 bytes at byte 1 ... which thread (0, 0, 0) read with no barrier",
        "int* Y",
        body,
        threads=128,
        Y=words(128),
    )


OWN = "int at = blockIdx.x * 32 + threadIdx.x;\n"


@pytest.mark.parametrize(
    "body, wanted",
    [
        ("Y[threadIdx.x] = 1;", "block (1, 0, 0), thread (0, 0, 0) writes ... which block (0, 0, 0) wrote"),
        (
            "Y[at] = X[threadIdx.x]; if (blockIdx.x == 2) X[threadIdx.x] = 1;",
            "block (2, 0, 0) ... which other blocks read",
        ),
        ("Y[at] = Y[threadIdx.x];", "block (1, 0, 0), thread (0, 0, 0) reads ... which block (0, 0, 0) wrote"),
        ("if (blockIdx.x) Y[0] = 1; else X[at] = Y[0];", "block (1, 0, 0) ... writes ... which block (0, 0, 0) read"),
    ],
)
def test_a_race_between_blocks(body, wanted):
    fails(wanted, "int* X, int* Y", OWN + body, grid=3, X=words(96), Y=words(96))


def test_blocks_that_share_no_byte():
    y = np.zeros(96, "uint8")
    run("uchar* Y", "Y[threadIdx.x * 3 + blockIdx.x] = blockIdx.x;", grid=3, Y=y)
    np.testing.assert_array_equal(y, np.arange(96) % 3)


COPY = """
  __shared__ alignas(64) int S[256];
  int me = threadIdx.x;
  *(int4*)(S + me * 4) = make_int4(0, 0, 0, 0);
  __syncthreads();
  emulator::cp_async16(S + me * 4, X + me * 4, VALID);
  emulator::cp_async_commit();
"""
TAKE = "*(int4*)(Y + me * 4) = *(int4*)(S + (me ^ 32) * 4);"


@pytest.mark.parametrize(
    "after, wanted",
    [
        ("__syncthreads();", "reads 16 bytes ... which cp.async has not been waited for to write"),
        ("emulator::cp_async_wait<1>(); __syncthreads();", "which cp.async has not been waited for to write"),
        ("__syncthreads(); emulator::cp_async_wait<0>();", "which cp.async has not been waited for to write"),
        ("emulator::cp_async_wait<0>();", "(32, 0, 0) writes 16 bytes ... which thread (0, 0, 0) read with no barrier"),
    ],
)
def test_a_copy_is_read_too_early(after, wanted):
    body = COPY.replace("VALID", "true") + after + TAKE
    fails(wanted, "int* X, int* Y", body, threads=64, X=words(256), Y=words(256))


def test_copies_arrive():
    x, y = words(256), words(256)
    body = COPY.replace("VALID", "me % 2 == 0") + "emulator::cp_async_wait<0>(); __syncthreads();" + TAKE
    run("int* X, int* Y", body, threads=64, X=x, Y=y)
    wanted = np.where(np.arange(64)[:, None] % 2 == 0, x.reshape(64, 4), 0)[np.arange(64) ^ 32]
    np.testing.assert_array_equal(y.reshape(64, 4), wanted)


def test_a_copy_reads_only_where_it_is_valid():
    body = (
        "__shared__ alignas(64) int S[256];\nemulator::cp_async16(S + threadIdx.x * 4, X + threadIdx.x * STEP, VALID);"
    )
    copy = body.replace("STEP", "4")
    run("int* X", copy.replace("VALID", "threadIdx.x < 16"), threads=64, X=words(64))
    wanted = "thread (16, 0, 0) reads 16 bytes at byte 256 of the buffer X"
    fails(wanted, "int* X", copy.replace("VALID", "true"), threads=64, X=words(64))
    fails("not aligned to 16", "int* X", body.replace("STEP", "1").replace("VALID", "true"), X=words(64))
