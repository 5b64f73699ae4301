"""Tiny artifacts: two layers on uint8 codes (2, 4, 8, 8), ``scale`` (times a factor, wrapping) and ``total`` (sums)."""

import json

import numpy as np

from hawqtvm.files import sha256_file

SHAPE, OUTPUT = (2, 4, 8, 8), (2, 4)


def build_library(path, factor):
    import tvm
    from tvm import relax, te, tirx

    def kernel(name, dtype, out_shape, compute):
        x = te.placeholder(SHAPE, dtype, name="x")
        function = te.create_prim_func([x, te.compute(out_shape, lambda *i: compute(x, *i), name=name)])
        schedule = tvm.s_tir.Schedule(function)
        schedule.parallel(schedule.get_loops(schedule.get_sblock(name))[1])  # so that threads matter
        function = schedule.mod["main"].with_attr("global_symbol", name).with_attr("tirx.noalias", True)
        return blocks.add_func(function.with_attr("op_pattern", 8), name)

    def function(name, dtype, kernels):
        x = relax.Var("x", relax.TensorType(SHAPE, dtype))
        with blocks.function(name, [x]):
            with blocks.dataflow():
                y = x
                for called, out in kernels:
                    y = blocks.emit(relax.call_tir(called, [y], relax.TensorType(*out)))
                y = blocks.emit_output(y)
            blocks.emit_func_output(y)

    rows, columns = te.reduce_axis((0, 8), "rows"), te.reduce_axis((0, 8), "columns")
    blocks = relax.BlockBuilder()
    scale = kernel("hawq_scale", "uint8", SHAPE, lambda x, *i: x(*i) * tirx.const(factor, "uint8"))
    total = kernel(
        "hawq_total",
        "uint8",
        OUTPUT,
        lambda x, n, c: te.sum(x[n, c, rows, columns].astype("int32"), axis=[rows, columns]),
    )
    quantize = kernel(
        "hawq_quantize",
        "float32",
        SHAPE,
        lambda x, *i: tirx.max(0, tirx.min(255, (x(*i) * 2.0 + 10.5).astype("int32"))).astype("uint8"),
    )
    function("main", "uint8", [(scale, (SHAPE, "uint8")), (total, (OUTPUT, "int32"))])
    function("quantize_input", "float32", [(quantize, (SHAPE, "uint8"))])
    tvm.compile(blocks.get(), target=tvm.target.Target({"kind": "llvm"})).export_library(str(path))


def write_manifest(directory, **changes):
    layers = [{"name": name, "kernel": f"hawq_{name}", "op": "any", "bits": 8} for name in ("scale", "total")]
    manifest = {
        "format": "hawqtvm-artifact",
        "version": 1,
        "model": "tiny",
        "weights": "none",
        "library": "model.so",
        "library_sha256": sha256_file(directory / "model.so"),
        "target": {"name": "any", "mcpu": "x86-64", "features": ["sse2"]},
        "threads": 1,
        "input": {"shape": list(SHAPE), "dtype": "uint8", "scale": 0.5, "zero_point": 10},
        "output": {"shape": list(OUTPUT), "dtype": "int32", "scale": 0.25},
        "layers": layers,
        "plan": {},
        "provenance": {},
    }
    (directory / "manifest.json").write_text(json.dumps(manifest | changes))


def reference(codes, factor=3):
    return (codes * np.uint8(factor)).sum((2, 3), dtype=np.int32)
