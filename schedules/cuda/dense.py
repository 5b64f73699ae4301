"""Fully connected layers on Tensor Cores: a 1x1 convolution of one pixel, whose images are the batch.

A batch of more than 8 lies in memory as pixels of 8 images do.
"""

from hawqtvm.qnn.formats import Format, fragment_rows
from schedules.cuda import conv2d_direct
from schedules.cuda.conv2d_geometry import is_stem
from schedules.cuda.conv2d_space import Config
from schedules.target import CudaTarget
from schedules.workload import Conv2d, Dense

NAME = "tensor_core_dense"
PIXEL_IMAGES = 8


def as_conv2d(workload: Dense) -> Conv2d:
    """The convolution, whose operands lie in memory as the layer's do."""
    rows = fragment_rows(workload.batch)
    return Conv2d(
        batch=min(rows, PIXEL_IMAGES),
        in_channels=workload.in_channels,
        height=1,
        width=max(1, rows // PIXEL_IMAGES),
        out_channels=workload.out_channels,
        kernel=(1, 1),
        strides=(1, 1),
        padding=(0, 0, 0, 0),
        dilation=(1, 1),
        groups=1,
        x=workload.x,
        x_zero_point=0,
        weight_bits=workload.weight_bits,
        epilogue=workload.epilogue,
    )


def formats(workload, target) -> tuple[Format, str] | None:
    if not isinstance(workload, Dense) or is_stem(as_conv2d(workload)):
        return None
    return conv2d_direct.formats(as_conv2d(workload), target)


def check(config: Config, workload: Dense, target: CudaTarget) -> str | None:
    if formats(workload, target) is None:
        return "only layers of uint4 x int4 or uint8 x int8, of more channels than a stem has"
    return conv2d_direct.check(config, as_conv2d(workload), target)


def space(workload: Dense, target: CudaTarget, threads: int) -> list[Config]:
    return conv2d_direct.space(as_conv2d(workload), target, threads)


def default(workload: Dense, target: CudaTarget, threads: int) -> Config:
    return conv2d_direct.default(as_conv2d(workload), target, threads)


def cycles(config: Config, workload: Dense, target: CudaTarget, threads: int) -> float:
    return conv2d_direct.cycles(config, as_conv2d(workload), target, threads)


def build(config: Config, workload: Dense, target: CudaTarget):
    """PrimFunc ``(x, weights, table, [residual], out, [codes])``; without an epilogue ``out`` is int32 HWNC."""
    return conv2d_direct.build_in(config, as_conv2d(workload), target, workload.x_dims, workload.out_dims)


def constants(config: Config, workload: Dense, weight, bias, b=None, c=None) -> list:
    """``weight (O,C)`` int8, ``bias``, ``b``, ``c`` ``(O,)`` int32 -> weights and table."""
    return conv2d_direct.constants(config, as_conv2d(workload), weight[:, :, None, None], bias, b, c)
