"""Pass 4.  4-bit weights and activations --> int32 words of eight; unpacked only for operators that cannot read them."""

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
            args = [
                bb.emit(reformat("qnn.unpack", x, d, layer, f"{layer}.unpack{i}", WORDS, CODES))
                for i, (x, d) in enumerate(zip(args, dims, strict=True))
            ]
            change["tensor"] = f"{layer}.unpacked"
            value = bb.emit(attributes.changed(call, args, **change))
            return reformat("qnn.pack", value, dialect.out_dims(call), layer, a["tensor"], CODES, WORDS)
        if name in LAYERS:
            if a["bits"] == 4:
                args[1] = relax.const(pack_words(attributes.constant(args[1]), 1))
            if a["x"] == CODES:
                change["x"] = WORDS
        elif "x_formats" in a:
            bytes_text, words_text = attributes.format_text(CODES), attributes.format_text(WORDS)
            change["x_formats"] = [words_text if f == bytes_text else f for f in a["x_formats"]]
        elif a["x"] == CODES:
            change["x"] = WORDS
        if a["out"] == CODES:
            change["out"] = WORDS
        if a.get("residual") == CODES:
            change["residual"] = WORDS
        return attributes.changed(call, args, **change)

    return rebuild(mod, visit)
