"""Pass 6.  4-bit weights and, if the context says so, activations --> int32 words of eight."""

import tvm
from tvm import ir, relax

from hawqtvm.qnn.formats import Format
from hawqtvm.qnn.packing import pack_words
from relay_passes import attributes, dialect
from relay_passes.context import Context
from relay_passes.rewrite import rebuild

LAYERS = ("qnn.conv2d", "qnn.dense")
# on a CPU it moves codes one by one: twice as fast on bytes, packing and unpacking included
UNPACKED = ("qnn.concat",)
WORDS = Format("uint4", packed=True)
CODES = Format("uint4")


def pack(mod: tvm.IRModule, context: Context) -> tvm.IRModule:
    """``conv(x uint4 in bytes, w int4 in bytes) --> conv(x in words, w in words)``, producers write words.

    Activations stay in bytes without ``context.words``: twice the memory, but kernels of byte dot products, which x86
    has, then read them as they lie.
    """

    def reformat(name: str, value, dims, layer: str, tensor: str, x: Format, out: Format) -> ir.Call:
        return dialect.call(name, [value], layer=layer, tensor=tensor, x_dims=dims, x=x, out=out)

    def visit(bb, call: ir.Call, var: relax.Var):
        a, args = attributes.read(call), list(call.args)
        name, layer = call.op.name, a["layer"]
        if name in LAYERS and a["bits"] == 4:
            args[1] = relax.const(pack_words(attributes.constant(args[1]), 1))
        if not context.words:
            return attributes.changed(call, args)
        if name in UNPACKED and not context.on_gpu:
            if a["x"] != CODES:
                return call
            dims = [(a["x_dims"][0], c, *a["x_dims"][2:]) for c in a["branches"]]
            args = [
                bb.emit(reformat("qnn.unpack", x, d, layer, f"{layer}.unpack{i}", WORDS, CODES))
                for i, (x, d) in enumerate(zip(args, dims, strict=True))
            ]
            value = bb.emit(attributes.changed(call, args, tensor=f"{layer}.unpacked"))
            return reformat("qnn.pack", value, dialect.out_dims(call), layer, a["tensor"], CODES, WORDS)
        # what an add or a requantization reads is the wide stream, never 4 bits
        return attributes.changed(call, args, **{key: WORDS for key in ("x", "out", "codes") if a.get(key) == CODES})

    return rebuild(mod, visit)
