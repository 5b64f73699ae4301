"""Text that TVM generates: exact as it is, and every mutation of it caught."""

import re

import numpy as np
import pytest
import tvm
from tvm import te, tirx
from tvm.script import tirx as T

from hawqtvm.emulator import Emulated
from hawqtvm.emulator.lowered import lower
from hawqtvm.errors import BadInput, CheckFailed
from schedules.target import find_target
from tests.emulator.texts import DEPTH, assert_says, product, product_arrays

TARGET = find_target("sm_75").tvm


@pytest.mark.parametrize("bits", [4, 8])
def test_product_is_exact(bits):
    arrays, wanted = product_arrays(bits)
    product(bits).run(*arrays)
    np.testing.assert_array_equal(arrays[2], wanted)
    assert len(np.unique(wanted)) > 30


def test_unchecked_is_the_same():
    arrays, wanted = product_arrays(8)
    product(8).run(*arrays, checked=False)
    np.testing.assert_array_equal(arrays[2], wanted)


def mutated(change) -> str | None:
    """The message with which the changed text fails, or None where it runs but its result is wrong."""
    lowered = product(4)
    changed = change(lowered.source)
    assert changed != lowered.source
    arrays, wanted = product_arrays(4)
    (launch,) = lowered.launches
    emulated = Emulated(changed)
    names = [parameter.name for parameter in emulated.kernels[launch.kernel].parameters]
    try:
        emulated.run(
            launch.kernel,
            launch.grid,
            launch.block,
            dict(zip(names, (arrays[number] for number in launch.buffers), strict=True)),
        )
    except CheckFailed as failed:
        return str(failed)
    assert not np.array_equal(arrays[2], wanted)
    return None


def without_barrier(number: int):
    def change(source: str) -> str:
        at = [match.start() for match in re.finditer(r"__syncthreads\(\);", source)][number]
        return source[:at] + source[at + len("__syncthreads();") :]

    return change


def shared_size(change: int):
    return lambda source: re.sub(r"columns_ptr\[(\d+)\];", lambda m: f"columns_ptr[{int(m[1]) + change}];", source)


def replaced(old: str, new: str, count: int = -1):
    return lambda source: source.replace(old, new, count)


MUTATIONS = {
    "no first barrier": (without_barrier(0), "writes 16 bytes ... of the shared array ... read with no barrier"),
    "no second barrier": (without_barrier(1), "reads 4 bytes ... of the shared array ... wrote with no barrier"),
    "misaligned": (
        replaced("(X_ptr + ", "(X_ptr + 1 + "),
        "reads 16 bytes at byte 4 of the buffer X ... not aligned to 16",
    ),
    "next vector": (replaced("(X_ptr + ", "(X_ptr + 4 + "), "of the buffer X ... out of bounds"),
    "next rows": (
        replaced("Y_ptr[", "Y_ptr[32 + "),
        "block (1, 0, 0) ... writes 4 bytes ... of the buffer Y ... out of bounds",
    ),
    "one block": (
        replaced("((int)blockIdx.x)", "0"),
        "block (1, 0, 0) ... writes 4 bytes ... which block (0, 0, 0) wrote",
    ),
    "small array": (shared_size(-8), "of the shared array columns_ptr ... out of bounds"),
    "next row": (
        replaced("(columns_ptr + ", "(columns_ptr + 12 + "),
        "of the shared array columns_ptr ... out of bounds",
    ),
    "lane missing": (
        replaced("mma_u4s4((&(", "if (threadIdx.x != 5) mma_u4s4((&("),
        "k32, but thread (5, 0, 0) of its warp",
    ),
    "swapped lanes": (replaced("int b) {", "int b) {\n  a = __shfl_xor_sync(~0u, a, 4);"), None),
    "not initialized": (replaced("sums_ptr[0] = 0;", "", 1), None),
    "wrong place in the word": (replaced("threadIdx.x % 4 *", "(threadIdx.x + 1) % 4 *"), None),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations(name):
    """Each fails with its message, or changes the result."""
    change, wanted = MUTATIONS[name]
    message = mutated(change)
    if wanted is None:
        assert message is None
    else:
        assert message.startswith("main_kernel: block (")
        assert_says(message, wanted)


def padded_sum():
    """Two kernels: a padded copy, then sums of neighbours; int64 and vectors of bytes."""
    rows, width = 6, 64
    x = te.placeholder((rows, width), "uint8", name="x")
    inside = lambda i: tirx.all(i >= 1, i < rows + 1)  # noqa: E731
    padded = te.compute(
        (rows + 2, width), lambda i, j: tirx.if_then_else(inside(i), x[i - 1, j], tirx.const(3, "uint8"))
    )

    def scaled(i, j):
        total = padded[i, j].astype("int64") + padded[i + 2, j].astype("int64")
        return ((total * tirx.const(2**30, "int64") + tirx.const(2**31, "int64")) >> tirx.const(32, "int64")).astype(
            "uint8"
        )

    out = te.compute((rows, width), scaled, name="out")
    sch = tvm.s_tir.Schedule(te.create_prim_func([x, out]))
    for block in (padded.op.name, "out"):
        loop = sch.fuse(*sch.get_loops(sch.get_sblock(block)))
        blocks, threads, vector = sch.split(loop, [None, 32, 4])
        sch.bind(blocks, "blockIdx.x")
        sch.bind(threads, "threadIdx.x")
        sch.vectorize(vector)
    return sch.mod["main"].with_attr("tirx.noalias", True)


def test_kernels_with_a_workspace():
    lowered = lower(padded_sum(), TARGET)
    assert [launch.grid for launch in lowered.launches] == [(4, 1, 1), (3, 1, 1)]
    assert {launch.block for launch in lowered.launches} == {(32, 1, 1)}
    assert lowered.workspaces == (((8 * 64 // 4, 4), "uint8"),)
    x = np.random.default_rng(0).integers(0, 256, (6, 64), "uint8")
    out = np.zeros_like(x)
    lowered.run(x, out)
    padded = np.pad(x.astype("int64"), ((1, 1), (0, 0)), constant_values=3)
    np.testing.assert_array_equal(out, (padded[:-2] + padded[2:] + 2 >> 2).astype("uint8"))


def turned(last_use: bool):
    """Two arrays in dynamic shared memory; with ``last_use`` the one is not read after the other is written."""

    @T.prim_func(s_tir=True)
    def kernel(x: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        X = T.match_buffer(x, (64,), "int32")
        Y = T.match_buffer(y, (64,), "uint8")
        thread = T.env_thread("threadIdx.x")
        T.launch_thread(thread, 64)
        words = T.decl_buffer((64,), "int32", scope="shared.dyn")
        codes = T.decl_buffer((64,), "uint8", scope="shared.dyn")
        words[thread] = X[thread]
        T.tvm_storage_sync("shared.dyn")
        codes[63 - thread] = T.Cast("uint8", words[thread ^ 1])
        T.tvm_storage_sync("shared.dyn")
        Y[thread] = codes[thread] if last_use else codes[thread] + T.Cast("uint8", words[thread])

    return lower(kernel, TARGET)


def test_dynamic_shared_memory():
    lowered = turned(last_use=False)
    assert lowered.launches[0].shared >= 64 * 4 + 64
    x, y = np.arange(64, dtype="int32"), np.zeros(64, "uint8")
    lowered.run(x, y)
    np.testing.assert_array_equal(y, x[np.arange(64) ^ 1][::-1] + x)


def test_a_race_that_tvm_makes():
    """It lays the second array over the first, which other threads still read."""
    lowered = turned(last_use=True)
    with pytest.raises(CheckFailed, match="buf_dyn_shmem.* with no barrier between"):
        lowered.run(np.arange(64, dtype="int32"), np.zeros(64, "uint8"))


def test_launches_of_the_product():
    (launch,) = product(8).launches
    assert (launch.kernel, launch.grid, launch.block, launch.shared) == ("main_kernel", (2, 1, 1), (32, 2, 1), 0)
    assert sorted(launch.buffers) == [0, 1, 2]


def test_a_loop_of_the_host_is_refused():
    x = te.placeholder((4, 32), "int32", name="x")
    sch = tvm.s_tir.Schedule(te.create_prim_func([x, te.compute((4, 32), lambda i, j: x[i, j] + 1, name="y")]))
    sch.bind(sch.get_loops(sch.get_sblock("y"))[1], "threadIdx.x")
    with pytest.raises(BadInput, match="bind every loop"):
        lower(sch.mod["main"], TARGET)


def test_arrays_of_another_number():
    with pytest.raises(BadInput, match="takes 3 arrays, not 2"):
        product(4).run(*product_arrays(4)[0][:2])
    assert DEPTH % 8 == 0
