"""Lowered kernels and the input quantizer -> one shared library and the manifest that describes it."""

import os
import platform
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tvm
from tvm import relax, te, tirx
from tvm.support import cc

import hawqtvm
from hawqtvm.console import Progress, waiting
from hawqtvm.errors import BadInput
from hawqtvm.files import sha256_file
from hawqtvm.qnn.formats import Format
from hawqtvm.qnn.model import Arithmetic, Quantization
from hawqtvm.runtime.artifact import KIND, VERSION
from hawqtvm.runtime.cpu import cpu_name
from hawqtvm.setting import ACTIVATIONS
from relay_passes.context import Context
from relay_passes.executable import build
from relay_passes.lift import expanded_bytes
from relay_passes.pipeline import lower
from relay_passes.schedule import Kernel
from schedules.cuda import nvcc
from schedules.lowering import cuda_text_as
from schedules.target import BASELINE, CudaTarget, Target

LIBRARY = "model.so"
LAYER_OPS = ("qnn.conv2d", "qnn.dense")
BLOCK_THREADS = 256
GEOMETRY = ("x_dims", "kernel", "strides", "groups")


def add_input_quantizer(
    mod: tvm.IRModule, q: Quantization, dims: tuple[int, ...], on_gpu: bool = False
) -> tvm.IRModule:
    """Adds ``quantize_input``: float32 images -> uint8 codes.  It stands before the integer program, not in it."""
    # the reciprocal as numpy rounds it, so that both round alike
    inverse = tirx.const(np.float32(1.0 / q.scale), "float32")
    images = te.placeholder(dims, "float32", name="images")

    def code(*at):
        value = te.round(images[at] * inverse) + tirx.const(float(q.zero_point), "float32")
        return te.max(te.min(value, tirx.const(255.0, "float32")), tirx.const(0.0, "float32")).astype("uint8")

    kernel = te.create_prim_func([images, te.compute(dims, code, name="codes")])
    sch = tvm.s_tir.Schedule(kernel)
    loops = sch.get_loops(sch.get_sblock("codes"))
    if on_gpu:
        grid, block = sch.split(sch.fuse(*loops), [None, BLOCK_THREADS])
        sch.bind(grid, "blockIdx.x")
        sch.bind(block, "threadIdx.x")
    else:
        sch.parallel(sch.fuse(*loops[:3]))
    kernel = sch.mod["main"].with_attr("tirx.noalias", True).without_attr("global_symbol")
    bb = relax.BlockBuilder(mod)
    x = relax.Var("images", relax.TensorType(dims, "float32"))
    with bb.function("quantize_input", [x]):
        with bb.dataflow():
            call = relax.call_tir(bb.add_func(kernel, "quantize_images"), [x], out_ty=relax.TensorType(dims, "uint8"))
            out = bb.emit_output(call)
        bb.emit_func_output(out)
    return bb.get()


def kernel_row(kernel: Kernel) -> dict:
    """A kernel's entry in the manifest."""
    workload = kernel.choice.workload
    epilogue, pool = getattr(workload, "epilogue", None), getattr(workload, "pool", None)
    fused, codes = getattr(epilogue, "residual", None), getattr(epilogue, "codes", None)
    dims = list(kernel.dims)
    return {
        "name": kernel.layer if kernel.op in LAYER_OPS else kernel.tensor,
        "kernel": kernel.name,
        "op": kernel.op,
        "tensor": kernel.tensor,
        "bits": kernel.bits,
        "schedule": kernel.choice.name,
        "config": str(kernel.choice.config),
        "config_source": "measured" if kernel.choice.measured else "estimated",
        "macs": getattr(workload, "macs", 0),
        "geometry": {name: getattr(workload, name) for name in GEOMETRY if hasattr(workload, name)},
        "fused_pool": pool and asdict(pool),
        "fused_residual": fused and fused.format.code,
        "output": storage(kernel.out) | {"dims": dims},
        "second_output": codes and {"tensor": kernel.codes} | storage(codes.out) | {"dims": dims},
    }


def storage(format: Format) -> dict:
    """A format in the manifest."""
    return {"code": format.code, "layout": format.layout, "packed": format.packed}


@dataclass(frozen=True)
class Library:
    """``manifest``: its parts that describe the library.  ``program``, ``kernels``: what was compiled, from codes to
    logits."""

    manifest: dict
    program: tvm.IRModule
    kernels: list[Kernel]


def compile_library(context: Context, directory: Path) -> Library:
    """Compiles into ``directory``/model.so; for a GPU it holds cubins, made for the context's target and no other.

    Raises CheckFailed when the program cannot be proved integer-only and free of overflow, BadInput where no C compiler
    works or, for a GPU, no nvcc is there.
    """
    if cc.get_cc() is None:
        raise BadInput("no C compiler found, with which TVM links the library: install gcc or clang, or set CXX")
    on_gpu = isinstance(context.target, CudaTarget)
    if on_gpu:
        nvcc.find_nvcc()  # before the long work
    arithmetic, batch, target = context.arithmetic, context.batch, context.target
    graph = arithmetic.graph
    with Progress("kernels") as progress:
        mod, kernels = lower(context, progress)
    expanded = expanded_bytes(mod)
    whole = add_input_quantizer(mod, arithmetic.tensors["input"], (batch, *graph.input_dims), on_gpu)
    library = directory / LIBRARY
    with waiting(f"compiling {len(kernels)} kernels for {target.name}"):
        with cuda_text_as(lambda text: nvcc.library_text(text, target.arch)) if on_gpu else nullcontext():
            executable = build(whole, target.tvm)
        link(executable, library)
    quantization, output = arithmetic.tensors["input"], arithmetic.tensors[graph.output.name]
    channels, height, width = graph.output.dims
    manifest = {
        "format": KIND,
        "version": VERSION,
        "model": arithmetic.model.name,
        "weights": arithmetic.model.provenance.get("weights", "trained"),
        "library": LIBRARY,
        "library_sha256": sha256_file(library),
        "target": described(target),
        "threads": context.threads,
        "residual": arithmetic.residual,
        "activations": ACTIVATIONS[context.words],
        "input": {
            "shape": [batch, *graph.input_dims],
            "dtype": "uint8",
            "scale": quantization.scale,
            "zero_point": quantization.zero_point,
        },
        "output": {
            "shape": [batch, channels, *([height, width] if (height, width) != (1, 1) else [])],
            "dtype": "int32",
            "scale": output.scale,
            "zero_point": output.zero_point,
        },
        "layers": [kernel_row(k) for k in kernels],
        "size": {
            "weights": weight_bytes(arithmetic),
            "expanded_weights": expanded,
            "library": library.stat().st_size,
        },
    }
    return Library(manifest, mod, kernels)


def described(target: Target) -> dict:
    """A target in the manifest; ``features``: the processor's that run the library."""
    if isinstance(target, CudaTarget):
        return {"name": target.name, "device": "cuda", "arch": target.arch, "features": list(BASELINE)}
    return {
        "name": target.name,
        "device": "cpu",
        "mcpu": target.mcpu,
        "mattr": list(target.mattr),
        "features": list(target.features),
    }


def link(executable: tvm.runtime.Executable, library: Path) -> None:
    """Writes the shared library; BadInput when the C compiler cannot."""
    try:
        executable.export_library(str(library))
    except (RuntimeError, FileNotFoundError, PermissionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise BadInput(f"{cc.get_cc()} cannot link {library.name} ({reason}): repair it, or set CXX") from error


def weight_bytes(arithmetic: Arithmetic) -> int:
    """Bytes of the plan's packed weights: half a byte or one each."""
    return sum(layer.weight.size * arithmetic.layer_bits[name] // 8 for name, layer in arithmetic.model.layers.items())


def provenance() -> dict:
    """Where, when and with what something was built."""
    return {
        "hawqtvm": hawqtvm.__version__,
        "tvm": version("apache-tvm"),
        "torch": version("torch"),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
