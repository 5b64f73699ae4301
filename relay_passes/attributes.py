"""Operator attributes of the QNN dialect: plain values in a DictAttrs, and the workload they describe."""

from typing import Any

from tvm import ir

from hawqtvm.qnn.formats import Format
from relay_passes.headroom import headroom
from schedules.workload import (
    AvgPool2d,
    Concat,
    Conv2d,
    Dense,
    Elementwise,
    Epilogue,
    MaxPool2d,
    Pool,
    Reformat,
    Requantized,
    Rescaled,
)


def format_text(fmt: Format) -> str:
    """ "uint4.NCHW16c.packed": as a format stands in an operator's attributes."""
    return ".".join([fmt.code, fmt.layout, *(["packed"] if fmt.packed else [])])


def parse_format(text: str) -> Format:
    code, layout, *packed = text.split(".")
    return Format(code, layout, bool(packed))


def make(**values: Any) -> ir.Attrs:
    return ir.make_node(
        "ir.DictAttrs",
        **{
            k: format_text(v) if isinstance(v, Format) else list(v) if isinstance(v, tuple) else v
            for k, v in values.items()
        },
    )


def plain(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "__iter__"):
        return tuple(plain(v) for v in value)
    return int(value)


FORMATS = ("x", "out", "residual", "codes")


def read(call: ir.Call) -> dict[str, Any]:
    """The attributes as Python values; formats as :class:`Format`, lists as tuples."""
    values = {str(k): plain(call.attrs[k]) for k in call.attrs.keys()}  # noqa: SIM118 (not a dict)
    return {k: parse_format(v) if k in FORMATS else v for k, v in values.items()}


def changed(call: ir.Call, args: list | None = None, **values: Any) -> ir.Call:
    """The call with other arguments or attributes."""
    return ir.Call(call.op, list(call.args if args is None else args), make(**(read(call) | values)))


def constant(expr) -> Any:
    """A relax constant's numpy array."""
    return expr.value.numpy()


def is_constant(expr) -> bool:
    return isinstance(expr, ir.GenericConst)


def epilogue(call: ir.Call, a: dict) -> Epilogue | None:
    if "lo" not in a:
        return None
    codes = None
    if "codes" in a:
        y = Rescaled(a["out"], a["codes_y_zero_point"], a["codes_b"], a["codes_c"])
        codes = Requantized(y, a["codes"], a["codes_zero_point"], a["codes_lo"], a["codes_hi"])
    min_shift = int(constant(call.args[4]).min())
    return Epilogue(a["out"], a["zero_point"], a["lo"], a["hi"], min_shift, residual(a), codes, a["headroom16"])


def residual(a: dict) -> Rescaled | None:
    """What a layer's epilogue adds."""
    if "residual" not in a:
        return None
    return Rescaled(a["residual"], a["residual_zero_point"], a["residual_b"], a["residual_c"])


def conv2d(call: ir.Call) -> Conv2d:
    a = read(call)
    n, c, h, w = a["x_dims"]
    return Conv2d(
        n,
        c,
        h,
        w,
        a["channels"],
        a["kernel"],
        a["strides"],
        a["padding"],
        a["dilation"],
        a["groups"],
        a["x"],
        a["x_zero_point"],
        a["bits"],
        epilogue(call, a),
        headroom(c // a["groups"], a["kernel"], a["x"].limits[1], a["bits"], constant(call.args[2])),
        Pool(a["pool_kernel"], a["pool_strides"], a["pool_padding"]) if "pool_kernel" in a else None,
    )


def dense(call: ir.Call) -> Dense:
    a = read(call)
    return Dense(a["x_dims"][0], a["x_dims"][1], a["channels"], a["x"], a["bits"], epilogue(call, a))


def elementwise(call: ir.Call) -> Elementwise:
    """Requantize or add, its rescales scalar (every per-channel one is in a layer's epilogue by now)."""
    a = read(call)
    count = len(a["x_formats"])
    numbers = [int(constant(n).item()) for n in call.args[count:]]
    operands = tuple(
        Rescaled(parse_format(f), z, b, c)
        for f, z, b, c in zip(a["x_formats"], a["x_zero_points"], numbers[::2], numbers[1::2], strict=True)
    )
    return Elementwise(a["x_dims"], operands, a["out"], a["zero_point"], a["lo"], a["hi"])


def max_pool2d(call: ir.Call) -> MaxPool2d:
    a = read(call)
    return MaxPool2d(a["x_dims"], a["x"], a["kernel"], a["strides"], a["padding"], a["dilation"])


def avg_pool2d(call: ir.Call) -> AvgPool2d:
    a = read(call)
    b, c = (int(constant(n).item()) for n in call.args[1:])
    return AvgPool2d(
        a["x_dims"],
        a["x"],
        a["x_zero_point"],
        a["kernel"],
        a["strides"],
        a["padding"],
        b,
        c,
        a["out"],
        a["zero_point"],
        a["lo"],
        a["hi"],
    )


def concat(call: ir.Call) -> Concat:
    a = read(call)
    n, _, h, w = a["x_dims"]
    return Concat(tuple((n, c, h, w) for c in a["branches"]), a["x"], a["out"])


def reformat(call: ir.Call) -> Reformat:
    a = read(call)
    return Reformat(a["x_dims"], a["x"], a["out"])


WORKLOADS = {
    "qnn.conv2d": conv2d,
    "qnn.dense": dense,
    "qnn.requantize": elementwise,
    "qnn.add": elementwise,
    "qnn.max_pool2d": max_pool2d,
    "qnn.avg_pool2d": avg_pool2d,
    "qnn.concat": concat,
    "qnn.pack": reformat,
    "qnn.unpack": reformat,
    "qnn.layout_transform": reformat,
}


def workload(call: ir.Call):
    """What the operator must compute; its rescales must be dyadic by now."""
    return WORKLOADS[call.op.name](call)
