"""Accesses that a GPU would let pass, or not: every one is named."""

import numpy as np
import pytest

from tests.emulator.texts import fails, run, words

SHARED = "__shared__ alignas(64) int S_ptr[64];\n__shared__ alignas(64) int T_ptr[64];\n"
FILL = "S_ptr[threadIdx.x] = 1; S_ptr[threadIdx.x + 32] = 1;\n__syncthreads();\n"


@pytest.mark.parametrize(
    "body, wanted",
    [
        ("Y_ptr[threadIdx.x] = X_ptr[threadIdx.x + 9];", "thread (31, 0, 0) reads 4 bytes at byte 160 of the buffer X"),
        ("Y_ptr[threadIdx.x] = X_ptr[(int)threadIdx.x - 1];", "thread (0, 0, 0) reads 4 bytes at byte -4 of the"),
        ("Y_ptr[threadIdx.x * 2] = 1;", "thread (16, 0, 0) writes 4 bytes at byte 128 of the buffer Y (128 bytes)"),
        ("Y_ptr[(int64_t)threadIdx.x - 31] = 1;", "writes 4 bytes at byte -124 of the buffer Y"),
        (
            "*(int4*)(Y_ptr + threadIdx.x * 4 + 16) = make_int4(1, 2, 3, 4);",
            "(4, 0, 0) writes 16 bytes at byte 128 of the",
        ),
        ("Y_ptr[threadIdx.x] = *(X_ptr + ((int64_t)1 << 44));", "reads 4 bytes at 0x...outside of every buffer"),
    ],
)
def test_a_buffer_is_left(body, wanted):
    assert f"; at: {body}" in fails(wanted, "int* X_ptr, int* Y_ptr", body, X=words(40), Y=words(32))


@pytest.mark.parametrize(
    "body, wanted",
    [
        ("Y_ptr[threadIdx.x] = S_ptr[threadIdx.x + 33];", "(31, 0, 0) takes element 64 of an array 'int [64]'"),
        (
            "Y_ptr[threadIdx.x] = *(S_ptr + threadIdx.x + 40);",
            "thread (24, 0, 0) reads ... 256 of the shared array S_ptr",
        ),
        (
            "Y_ptr[threadIdx.x] = *(T_ptr + (int)threadIdx.x - 9);",
            "reads 4 bytes at byte -36 of the shared array T_ptr",
        ),
        (
            "*(int2*)(T_ptr + threadIdx.x * 2 + 2) = make_int2(1, 2);",
            "(31, 0, 0) writes 8 bytes at byte 256 of the shared",
        ),
    ],
)
def test_a_shared_array_is_left(body, wanted):
    """Each by itself: the other one lies beside it on a GPU."""
    fails(wanted, "int* Y_ptr", SHARED + FILL + body, Y=words(32))


def test_dynamic_shared_memory_is_left():
    me = "((int*)dyn)[threadIdx.x]"
    body, y = f"extern __shared__ uchar dyn[];\n{me} = 5; Y[threadIdx.x] = {me};", words(32)
    run("int* Y", body, shared=128, Y=y)
    assert (y == 5).all()
    wanted = "thread (31, 0, 0) writes 4 bytes at byte 124 of the shared array dyn (124 bytes)"
    fails(wanted, "int* Y", body, shared=124, Y=y)


def test_a_local_array_is_left():
    body = "int sums[4];\nfor (int i = 0; i < 4 + (threadIdx.x == 3); ++i) sums[i] = i;\nY[threadIdx.x] = sums[X[0]];"
    fails("thread (3, 0, 0) takes element 4 of an array 'int [4]'", "int* X, int* Y", body, X=words(1), Y=words(32))


@pytest.mark.parametrize(
    "body, wanted",
    [
        ("int4 v = *(int4*)(X + threadIdx.x); *(int4*)Y = v;", "(1, 0, 0) reads 16 bytes at byte 4 of the buffer X"),
        ("*(int2*)(Y + threadIdx.x) = make_int2(1, 2);", "thread (1, 0, 0) writes 8 bytes at byte 4 of the buffer Y"),
        ("*(int*)((uchar*)Y + threadIdx.x) = 1;", "thread (1, 0, 0) writes 4 bytes at byte 1 of the buffer Y"),
        (
            SHARED + "*(int4*)(S_ptr + 6) = make_int4(1, 2, 3, 4);",
            "writes 16 bytes at byte 24 of the shared array S_ptr",
        ),
    ],
)
def test_a_vector_is_misaligned(body, wanted):
    assert "not aligned to" in fails(wanted, "int* X, int* Y", body, X=words(64), Y=words(64))


def test_what_nobody_wrote():
    body = SHARED.replace("64]", "128]") + "S_ptr[threadIdx.x] = 1; __syncthreads(); Y[threadIdx.x] = S_ptr[64];"
    wanted = "byte 256 of the shared array S_ptr (512 bytes), which the block has not written"
    fails(wanted, "int* Y", body, threads=64, Y=words(64))


def test_shared_memory_of_the_block_before():
    body = SHARED + "if (blockIdx.x == 0) S_ptr[threadIdx.x] = 1; else Y[threadIdx.x] = S_ptr[threadIdx.x];"
    fails("block (1, 0, 0), thread (0, 0, 0) reads ... has not written", "int* Y", body, grid=2, Y=words(32))


@pytest.mark.parametrize("type", ["const int*", "const int* __restrict__"])
def test_a_constant_buffer_is_written(type):
    fails("writes ... X (128 bytes), which is constant", f"{type} X", "((int*)X)[threadIdx.x] = 1;", X=words(32))


def test_a_read_only_array_is_written():
    x = words(32)
    x.flags.writeable = False
    fails(
        "writes 4 bytes at byte 0 of the buffer X (128 bytes), which is constant", "int* X", "X[threadIdx.x] = 1;", X=x
    )


def test_a_failed_run_changes_nothing():
    y = words(32)
    fails("byte 128 of the buffer Y", "int* Y", "Y[threadIdx.x + 1] = 7;", Y=y)
    np.testing.assert_array_equal(y, words(32))


def test_arrays_that_are_not_contiguous():
    x, y = words(64)[::2], words(64)[::2]
    run("int* X, int* Y", "Y[threadIdx.x] = X[threadIdx.x] * 3;", X=x, Y=y)
    np.testing.assert_array_equal(y, x * 3)
