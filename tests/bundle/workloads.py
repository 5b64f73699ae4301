"""Workloads that take every schedule of a GPU, with tails, borders, residuals and second outputs."""

from hawqtvm.qnn.formats import Format
from schedules.workload import (
    AvgPool2d,
    Conv2d,
    Dense,
    Elementwise,
    Epilogue,
    MaxPool2d,
    Reformat,
    Requantized,
    Rescaled,
)

NIBBLES, BYTES, WIDE, SUMS = (Format(code, "HWNC", code == "uint4") for code in ("uint4", "uint8", "int16", "int32"))
RESIDUAL = Rescaled(WIDE, 0, 2**30 + 12345, 32)
CODES = Requantized(Rescaled(WIDE, 0, 1_700_000_000, 40), NIBBLES, 0, 0, 15)
NO_PADDING, ONE, THREE = (0,) * 4, (1,) * 4, (3,) * 4


def conv(batch, channels, size, out_channels, kernel, stride, padding, x, epilogue, groups=1, zero_point=0) -> Conv2d:
    window, steps = (kernel, kernel), (stride, stride)
    bits = 4 if x == NIBBLES else 8
    shape = (batch, channels, *size, out_channels)
    return Conv2d(*shape, window, steps, padding, (1, 1), groups, x, zero_point, bits, epilogue, 2)


FOUR = conv(8, 64, (4, 4), 64, 3, 1, ONE, NIBBLES, Epilogue(WIDE, 0, 0, 2**15 - 1, 27, RESIDUAL, CODES))
EIGHT = conv(8, 64, (4, 4), 64, 3, 1, ONE, BYTES, Epilogue(BYTES, 0, 0, 255, 34))
FEW = 2
WORKLOADS = {
    FOUR: "four bits",
    EIGHT: "eight bits",
    conv(3, 40, (5, 4), 50, 3, 2, ONE, BYTES, Epilogue(BYTES, 5, 0, 255, 34), zero_point=3): "tails",
    conv(2, 3, (12, 12), 32, 7, 2, THREE, Format("uint8"), Epilogue(WIDE, 0, 0, 2**15 - 1, 32), zero_point=7): "stem",
    conv(1, 32, (6, 6), 32, 3, 1, ONE, BYTES, Epilogue(BYTES, 0, 0, 255, 31), 32, 3): "depthwise",
    Dense(8, 64, 10, BYTES, 8, Epilogue(SUMS, 0, -(2**31), 2**31 - 1, 30)): "dense",
    Elementwise((8, 32, 3, 3), (RESIDUAL, RESIDUAL), BYTES, 2, 0, 255): "add",
    MaxPool2d((8, 32, 6, 6), WIDE, (3, 3), (2, 2), ONE, (1, 1)): "max",
    AvgPool2d((8, 32, 4, 4), WIDE, 0, (4, 4), (1, 1), NO_PADDING, 2**30, 38, BYTES, 0, 0, 255): "average",
    Reformat((3, 10, 1, 1), SUMS, Format("int32")): "logits",
}
