"""What machine a TVM RPC server runs on: asked of the machine itself, for the server need not have hawqtvm."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from tvm import rpc
from tvm.script import tirx as T

from hawqtvm.runtime.cpu import cpuinfo
from schedules.target import CPU_TARGETS
from schedules.tuning_log import Device

ANY_X86 = CPU_TARGETS[-1]
LENGTH = 8192  # bytes of /proc/cpuinfo that surely hold its first CPU
READ_ONLY, PROCESSORS_ONLINE = 0, 84  # O_RDONLY, _SC_NPROCESSORS_ONLN of Linux


@dataclass(frozen=True)
class Machine:
    """``features``: what the CPU can, as Linux names it."""

    device: Device
    features: frozenset[str]


@T.prim_func(s_tir=True)
def ask(text: T.Buffer((LENGTH,), "uint8"), cores: T.Buffer((1,), "int64")):
    T.func_attr({"global_symbol": "main"})
    file: T.let[T.int32] = T.call_extern("int32", "open", "/proc/cpuinfo", READ_ONLY)
    T.evaluate(T.call_extern("int64", "read", file, text.data, T.int64(LENGTH)))
    T.evaluate(T.call_extern("int32", "close", file))
    cores[0] = T.call_extern("int64", "sysconf", PROCESSORS_ONLINE)


def remote_machine(remote: rpc.RPCSession) -> Machine:
    """The machine at the other end; its name is empty where it is no Linux."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "machine.so"
        tvm.compile(ask, target=ANY_X86.tvm).export_library(str(library))
        remote.upload(str(library))
    text = tvm.runtime.tensor(np.zeros(LENGTH, "uint8"), remote.cpu())
    cores = tvm.runtime.tensor(np.zeros(1, "int64"), remote.cpu())
    remote.load_module(library.name)["main"](text, cores)
    lines = bytes(text.numpy()).rstrip(b"\0").decode(errors="replace").splitlines()
    name, features = cpuinfo(lines, "model name"), cpuinfo(lines, "flags")
    return Machine(Device(name, int(cores.numpy()[0])), frozenset(features.split()))
