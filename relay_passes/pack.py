"""Pass 4.  4-bit weights and activations --> int32 words of eight; unpacked only where an operator cannot read words."""

import numpy as np
import tvm
from tvm import ir, relax

from hawqtvm.qnn.formats import Format
from hawqtvm.qnn.packing import pack_words
from relay_passes import attributes, dialect
from relay_passes.context import Context
from relay_passes.rewrite import rebuild

LAYERS = ("qnn.conv2d", "qnn.dense")
# these move or compare codes one by one
UNPACKED_ONLY = ("qnn.max_pool2d", "qnn.concat")
WORDS = Format("uint4", packed=True)
CODES = Format("uint4")


def packed_weight(weight: np.ndarray) -> np.ndarray:
    """int8 ``(O, I, ...)`` 4-bit values -> int32 ``(O, ceil(I/8), ...)``; values past I are 0."""
    pad = [(0, 0)] * weight.ndim
    pad[1] = (0, -weight.shape[1] % 8)
    return pack_words(np.pad(weight, pad), 1)


def pack(mod: tvm.IRModule, context: Context) -> tvm.IRModule:
    """``conv(x uint4 in bytes, w int4 in bytes) --> conv(x in words, w in words)``, producers write words."""

    def reformat(name: str, value, dims, layer: str, tensor: str, x: Format, out: Format) -> ir.Call:
        return dialect.call(name, [value], layer=layer, tensor=tensor, x_dims=dims, x=x, out=out)

    def visit(bb, call: ir.Call, var: relax.Var):
        a, args, change = attributes.read(call), list(call.args), {}
        name, layer = call.op.name, a["layer"]
        if name in UNPACKED_ONLY:
            if a["x"] != CODES:
                return call
            dims = [(a["x_dims"][0], c, *a["x_dims"][2:]) for c in a.get("branches", a["x_dims"][1:2])]
            args = [bb.emit(reformat("qnn.unpack", x, d, layer, f"{layer}.unpack{i}", WORDS, CODES))
                    for i, (x, d) in enumerate(zip(args, dims, strict=True))]  # fmt: skip
            change["tensor"] = f"{layer}.unpacked"
            value = bb.emit(attributes.changed(call, args, **change))
            return reformat("qnn.pack", value, dialect.out_dims(call), layer, a["tensor"], CODES, WORDS)
        if name in LAYERS:
            if a["bits"] == 4:
                args[1] = relax.const(packed_weight(attributes.constant(args[1])))
            if a["x"] == CODES:
                change["x"] = WORDS
        elif "x_formats" in a:
            texts = [attributes.format_text(WORDS if attributes.parse_format(f) == CODES else attributes.parse_format(f))
                     for f in a["x_formats"]]  # fmt: skip
            change["x_formats"] = texts
        elif a["x"] == CODES:
            change["x"] = WORDS
        if a["out"] == CODES:
            change["out"] = WORDS
        if a.get("residual") == CODES:
            change["residual"] = WORDS
        return attributes.changed(call, args, **change)

    return rebuild(mod, visit)
