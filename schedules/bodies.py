"""Every workload as tensor expressions over its kernel's arguments: what any processor's portable schedule builds."""

from tvm import te

from hawqtvm.qnn.formats import Format
from schedules import compute
from schedules.workload import AvgPool2d, Concat, Conv2d, Dense, Elementwise, MaxPool2d, Reformat


def placeholder(fmt, dims, name: str) -> te.Tensor:
    return te.placeholder(fmt.shape(dims), fmt.dtype, name=name)


def layer(workload: Conv2d | Dense) -> list[te.Tensor]:
    """Arguments and, last, what it makes."""
    window = workload.kernel if isinstance(workload, Conv2d) else ()
    inputs = workload.in_channels // (workload.groups if isinstance(workload, Conv2d) else 1)
    x = placeholder(workload.x, workload.x_dims, "x")
    packed = workload.weight_bits == 4
    shape = (workload.out_channels, -(-inputs // 8) if packed else inputs, *window)
    weight = te.placeholder(shape, "int32" if packed else "int8", name="weight")
    bias, b, c = (te.placeholder((workload.out_channels,), "int32", name=n) for n in ("bias", "b", "c"))
    total = (compute.conv2d_sum if window else compute.dense_sum)(workload, x, weight, bias)
    epilogue = workload.epilogue
    if epilogue is None:
        return [x, weight, bias, total]
    operands = [(lambda *at: total[at], 0, compute.channel_rescale(b, c))]
    arguments = [x, weight, bias, b, c]
    if epilogue.residual is not None:
        r = epilogue.residual
        arguments.append(placeholder(r.format, workload.out_dims, "residual"))
        operands.append((compute.reader(arguments[-1], r.format), r.zero_point, compute.scalar_rescale(r.b, r.c)))
    dims = workload.sum_dims if window else workload.out_dims
    codes = compute.rescaled_codes(operands, dims, epilogue.zero_point, epilogue.lo, epilogue.hi)
    if window and workload.pool:
        codes = compute.max_pool2d(lambda *at: codes[at], max_pool(workload))
    made = [compute.write(lambda *at: codes[at], workload.out_dims, epilogue.out)]
    if epilogue.codes is not None:
        second, y = epilogue.codes, epilogue.codes.y
        stored = compute.reader(made[0], y.format)  # so that one thread makes both, where threads are bound
        again = compute.rescaled_codes(
            [(stored, y.zero_point, compute.scalar_rescale(y.b, y.c))],
            workload.out_dims,
            second.zero_point,
            second.lo,
            second.hi,
        )
        made.append(compute.write(lambda *at: again[at], workload.out_dims, second.out, "second"))
    return [*arguments, *made]


def max_pool(workload: Conv2d) -> MaxPool2d:
    """A convolution's pool as an operator of its own, which reads plain codes."""
    codes, pool = Format(workload.epilogue.out.code), workload.pool
    return MaxPool2d(workload.sum_dims, codes, pool.kernel, pool.strides, pool.padding, (1, 1))


def elementwise(workload: Elementwise) -> list[te.Tensor]:
    arguments = [placeholder(o.format, workload.dims, f"x{i}") for i, o in enumerate(workload.operands)]
    operands = [
        (compute.reader(x, o.format), o.zero_point, compute.scalar_rescale(o.b, o.c))
        for x, o in zip(arguments, workload.operands, strict=True)
    ]
    codes = compute.rescaled_codes(operands, workload.dims, workload.zero_point, workload.lo, workload.hi)
    return [*arguments, compute.write(lambda *at: codes[at], workload.dims, workload.out)]


def pool(workload: MaxPool2d | AvgPool2d) -> list[te.Tensor]:
    x = placeholder(workload.x, workload.dims, "x")
    if isinstance(workload, MaxPool2d):
        codes, out = compute.max_pool2d(compute.reader(x, workload.x), workload), workload.x
    else:
        total, out = compute.avg_pool2d_sum(workload, x), workload.out
        scale = compute.scalar_rescale(workload.b, workload.c)
        codes = compute.rescaled_codes(
            [(lambda *at: total[at], 0, scale)], workload.out_dims, workload.zero_point, workload.lo, workload.hi
        )
    return [x, compute.write(lambda *at: codes[at], workload.out_dims, out)]


def moved(workload: Concat | Reformat) -> list[te.Tensor]:
    dims = workload.operands if isinstance(workload, Concat) else (workload.dims,)
    arguments = [placeholder(workload.x, d, f"x{i}") for i, d in enumerate(dims)]
    code = compute.concat([compute.reader(x, workload.x) for x in arguments], dims)
    return [*arguments, compute.write(code, workload.out_dims, workload.out)]


BODIES = {
    Conv2d: layer,
    Dense: layer,
    Elementwise: elementwise,
    MaxPool2d: pool,
    AvgPool2d: pool,
    Concat: moved,
    Reformat: moved,
}
