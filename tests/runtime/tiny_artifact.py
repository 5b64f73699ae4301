"""Tiny artifacts: two layers on uint8 codes (2, 4, 8, 8), ``scale`` (times a factor, wrapping) and ``total`` (sums)."""

import json

import numpy as np

from hawqtvm.files import sha256_file

SHAPE, OUTPUT = (2, 4, 8, 8), (2, 4)


def build_library(path, factor):
    """main(x, weights) with the factor as the only weight, stored as one less."""
    import tvm
    from tvm import relax, te, tirx

    def kernel(name, inputs, out_shape, compute, outer=2):
        inputs = [te.placeholder(*x) for x in inputs]
        function = te.create_prim_func([*inputs, te.compute(out_shape, lambda *i: compute(*inputs, *i), name=name)])
        schedule = tvm.s_tir.Schedule(function)
        schedule.parallel(schedule.get_loops(schedule.get_sblock(name))[outer - 1])  # so that threads matter
        function = schedule.mod["main"].with_attr("global_symbol", name).with_attr("tirx.noalias", True)
        return blocks.add_func(function.with_attr("op_pattern", 8), name)

    def function(name, params, emit):
        with blocks.function(name, params):
            with blocks.dataflow():
                out = blocks.emit_output(emit())
            blocks.emit_func_output(out)

    def call(called, arguments, *out):
        return blocks.emit(relax.call_tir(called, arguments, relax.TensorType(*out)))

    rows, columns = te.reduce_axis((0, 8), "rows"), te.reduce_axis((0, 8), "columns")
    one, codes, factors = tirx.const(1, "uint8"), (SHAPE, "uint8"), ((1,), "uint8")
    blocks = relax.BlockBuilder()
    expand = kernel("hawq_expand", [factors], (1,), lambda stored, i: stored[i] + one, outer=1)
    scale = kernel("hawq_scale", [codes, factors], SHAPE, lambda x, factor, *i: x(*i) * factor[0])
    total = kernel(
        "hawq_total",
        [codes],
        OUTPUT,
        lambda x, n, c: te.sum(x[n, c, rows, columns].astype("int32"), axis=[rows, columns]),
    )
    quantize = kernel(
        "hawq_quantize",
        [(SHAPE, "float32")],
        SHAPE,
        lambda x, *i: tirx.max(0, tirx.min(255, (x(*i) * 2.0 + 10.5).astype("int32"))).astype("uint8"),
    )
    x, images = relax.Var("x", relax.TensorType(*codes)), relax.Var("images", relax.TensorType(SHAPE, "float32"))
    weights = relax.Var("weights", relax.TupleType([relax.TensorType(*factors)]))
    stored = relax.const(np.array([factor - 1], "uint8"))
    function("expand_weights", [], lambda: relax.Tuple([call(expand, [stored], *factors)]))
    function(
        "main",
        [x, weights],
        lambda: call(total, [call(scale, [x, relax.TupleGetItem(weights, 0)], *codes)], OUTPUT, "int32"),
    )
    function("quantize_input", [images], lambda: call(quantize, [images], *codes))
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
