"""What loading does to a process: no torch, no compiler, no moved CPUs; and it gets along with what is there before."""

import pytest

from hawqtvm.runtime.threads import ALLOWED_CPUS

USE = """
import os, sys
import numpy as np
from hawqtvm.runtime import load

codes = np.arange(512, dtype=np.uint8).reshape(2, 4, 8, 8)
expected = (codes * np.uint8(3)).sum((2, 3), dtype=np.int32)

def use(**options):
    model = load(sys.argv[1], **options)
    assert (model(codes) == expected).all()
    return model
"""
two_cpus = pytest.mark.skipif(len(ALLOWED_CPUS) < 2, reason="one CPU")


def test_neither_torch_nor_tvm_nor_the_compiler_is_loaded(built, python):
    text = """
use()
maps = open("/proc/self/maps").read()
print({name.partition(".")[0] for name in sys.modules} & {"torch", "tvm", "hawqtvm", "schedules", "relay_passes"})
print([name for name in ("libtvm_compiler", "libtorch", "libtvm_runtime.so") if name in maps])
"""
    assert python(USE + text, built()).splitlines() == ["{'hawqtvm'}", "['libtvm_runtime.so']"]


def test_torch_and_tvm_can_come_later(built, python):
    text = """
model = use()
import torch
assert (model(torch.from_numpy(codes).numpy()) == expected).all()
import tvm
from tvm import te
x = te.placeholder((4,), "int32", name="x")
twice = tvm.compile(te.create_prim_func([x, te.compute((4,), lambda i: x[i] * 2)]), target={"kind": "llvm"})
out = tvm.runtime.tensor(np.zeros(4, "int32"))
twice(tvm.runtime.tensor(np.arange(4, dtype="int32")), out)
assert out.numpy().tolist() == [0, 2, 4, 6]
use()
print("fine")
"""
    assert python(USE + text, built()) == "fine"


@pytest.mark.parametrize("before", ["torch", "tvm", "torch, tvm", "tvm_ffi"])
def test_torch_or_tvm_can_be_there_already(built, python, before):
    text = "\nuse(); use(threads=1); print('fine')"
    assert python(f"import {before}\n{USE}{text}", built()) == "fine"


def test_a_confined_process_stays_confined(built, python):
    text = "import os; os.sched_setaffinity(0, {int(__import__('sys').argv[2])})\n" + USE
    text += """
model = use(threads=1)
model.trace(codes), model.measure(3)
try:
    load(sys.argv[1], threads=2)
except Exception as error:
    print(error)
print(os.sched_getaffinity(0), os.environ.get("TVM_NUM_THREADS"))
"""
    last = ALLOWED_CPUS[-1]
    told, left = python(text, built(), last).splitlines()
    assert told == "threads=2: give a number from 1 to 1, the CPUs this process may use"
    assert left == f"{{{last}}} None"


@two_cpus
def test_a_pool_made_too_small_before(built, python):
    text = """
from hawqtvm.runtime.engine import ffi
os.environ["TVM_NUM_THREADS"] = "1"
used = ffi().get_global_func("runtime.NumThreads")
assert used() == 1
model = use(threads=2)
print(model._run(used), used(), len(model.measure(3)), list(model.trace(codes)))
print(use(threads=1)._run(used))
"""
    assert python(USE + text, built()).splitlines() == ["2 1 3 ['scale', 'total']", "1"]


@two_cpus
def test_cpus_are_known_after_tvm_pinned_the_caller(built, python):
    pin = """
import os
cpus = os.sched_getaffinity(0)
import tvm
tvm.get_global_func("runtime.NumThreads")()
assert os.sched_getaffinity(0) != cpus
"""
    text = """
use(threads=2)
assert os.sched_getaffinity(0) == cpus
print("fine")
"""
    assert python(pin + USE + text, built()) == "fine"


@two_cpus
def test_a_forked_child_runs_too(built, python):
    text = """
model = use(threads=2)
child = os.fork()
if child == 0:
    ok = (model(codes) == expected).all() and len(os.sched_getaffinity(0)) > 1
    os._exit(0 if ok else 1)
print(os.waitpid(child, 0)[1], (model(codes) == expected).all())
"""
    assert python(USE + text, built()) == "0 True"
