"""Runs Tensor Core kernels in the emulator, beside int64, with all that is undefined filled with large codes."""

import numpy as np
import tvm_ffi
from cases import WORDS
from reference import conv2d, dense, finish, requantize
from tvm import tirx

from hawqtvm.emulator import Emulated
from hawqtvm.qnn.formats import Format, fragment_rows
from schedules.cuda import conv2d_direct
from schedules.lowering import compiled
from schedules.target import find_target

ARCHES = ("sm_75", "sm_80", "sm_90")
AXES = ("x", "y", "z")


def source(func, target) -> str:
    """The CUDA text of a PrimFunc."""
    return compiled(func, target.tvm).mod.imports[0].inspect_source("cuda")


def launch(func) -> tuple[tuple, tuple]:
    """Grid and block of a PrimFunc of one kernel."""
    extents = {}

    def visit(node):
        if node.attr_key == "thread_extent":
            extents[node.node.thread_tag] = int(node.value)

    tvm_ffi.structural_walk(func.body, (tirx.AttrStmt, visit))
    return tuple(tuple(extents.get(f"{kind}Idx.{axis}", 1) for axis in AXES) for kind in ("block", "thread"))


def stored_with_garbage(codes: np.ndarray, format: Format) -> np.ndarray:
    """Codes as stored; images past N and channels past C are as large as can be."""
    n, c, h, w = codes.shape
    if format.layout == "NCHW":
        return format.store(codes)
    everything = np.full((fragment_rows(n), -(-c // 32) * 32, h, w), format.limits[1])
    everything[:n, :c] = codes
    return format.store(everything)


def outcome(arch: str, config, workload, x, weight, bias, b, c, residual=None, schedule=conv2d_direct):
    """Each output of a kernel and what it should be, ``(N, O, H, W)``."""
    target, epilogue = find_target(arch), workload.epilogue
    assert schedule.check(config, workload, target) is None
    arguments = {"x": stored_with_garbage(x, workload.x)}
    arguments["weights"], arguments["table"] = schedule.constants(config, workload, weight, bias, b, c)
    if residual is not None:
        arguments["residual"] = stored_with_garbage(residual, epilogue.residual.format)
    written = epilogue.outputs if epilogue else (WORDS[-1],)
    for name, format in zip(("out", "codes"), written, strict=False):
        arguments[name] = np.full(format.shape(workload.out_dims), 0x5A, format.dtype)
    func = schedule.build(config, workload, target)
    words = {name: array if name == "x" else array.view("int32") for name, array in arguments.items()}
    Emulated(source(func, target)).run("main_kernel", *launch(func), words)
    sums = conv2d(x, weight, bias, workload) if weight.ndim == 4 else dense(x, weight, bias)
    wanted = [finish(sums, epilogue, b, c, residual)]
    if epilogue and epilogue.codes:
        wanted.append(requantize(wanted[0], epilogue.codes))
    _, channels, *_ = workload.out_dims
    return [
        (format.load(arguments[name], channels, workload.batch), codes)
        for name, format, codes in zip(("out", "codes"), written, wanted, strict=False)
    ]
