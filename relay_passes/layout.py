"""Pass 7.  NCHW everywhere --> each operator in its schedule's own layout.

``op(x NCHW) --> op(layout_transform(x) NCHW16c)``, on a GPU HWNC: a conversion is made where a reader asks for a layout
a tensor does not have yet, once for all its readers; a tensor made in the layout its readers ask for is never
converted.
"""

from dataclasses import replace

import tvm
from tvm import ir, relax

from hawqtvm.qnn.formats import Format
from relay_passes import attributes, dialect
from relay_passes.context import Context
from relay_passes.rewrite import bindings, rebuild
from schedules.dispatch import choose, io_layouts


def main_result(mod: tvm.IRModule) -> relax.Var:
    """The variable of the operator that makes main's result (the result itself is another name for it)."""
    return [b for b in bindings(mod) if isinstance(b.value, ir.Call)][-1].var


def laid_out(call: ir.Call, a: dict, x_layout: str, out_layout: str) -> ir.Call:
    """The call with the formats of its inputs and its outputs in these layouts."""
    change = {"out": replace(a["out"], layout=out_layout)}
    if "x_formats" in a:
        formats = [replace(attributes.parse_format(f), layout=x_layout) for f in a["x_formats"]]
        change["x_formats"] = [attributes.format_text(f) for f in formats]
    else:
        change["x"] = replace(a["x"], layout=x_layout)
    change |= {key: replace(a[key], layout=out_layout) for key in ("residual", "codes") if key in a}
    return attributes.changed(call, **change)


def layout(mod: tvm.IRModule, context: Context) -> tvm.IRModule:
    held: dict[relax.Var, dict[str, relax.Var]] = {}
    stored: dict[relax.Var, tuple[Format, tuple]] = {}
    result, graph_input = main_result(mod), mod["main"].params[0]
    stored[graph_input] = (Format("uint8"), tuple(int(d) for d in graph_input.ty.shape))
    held[graph_input] = {"NCHW": graph_input}

    def wanted(bb, value: relax.Var, want: str, layer: str) -> relax.Var:
        if want not in held[value]:
            fmt, dims = stored[value]
            converted = replace(fmt, layout=want)
            held[value][want] = bb.emit(
                dialect.call(
                    "qnn.layout_transform",
                    [value],
                    layer=layer,
                    tensor=f"{layer}.{want}",
                    x_dims=dims,
                    x=fmt,
                    out=converted,
                )
            )
        return held[value][want]

    def visit(bb, call: ir.Call, var: relax.Var):
        a = attributes.read(call)
        inputs = [x for x in call.args if not attributes.is_constant(x)]
        held_layout = stored[inputs[0]][0].layout
        workload = attributes.workload(laid_out(call, a, held_layout, a["out"].layout))
        x_layout, out_layout = io_layouts(choose(workload, context.target, context.threads, context.tuned).workload)
        wants = [x_layout] * len(inputs)
        if "residual" in a:
            wants[-1] = out_layout
        laid = laid_out(call, a, x_layout, out_layout)
        args, converted = [], iter(wants)
        for arg in call.args:
            args.append(arg if attributes.is_constant(arg) else wanted(bb, arg, next(converted), a["layer"]))
        made = bb.emit(ir.Call(call.op, args, laid.attrs), var.name)
        outputs = {"out": made}
        if "codes" in a:
            outputs = {key: bb.emit(relax.TupleGetItem(made, index)) for index, key in enumerate(("out", "codes"))}
        for key, value in outputs.items():
            held[value] = {out_layout: value}
            stored[value] = (replace(a[key], layout=out_layout), dialect.out_dims(call))
        if var == result and out_layout != "NCHW":
            return wanted(bb, made, "NCHW", a["layer"])
        return relax.Tuple(list(outputs.values())) if "codes" in a else made

    return rebuild(mod, visit)
