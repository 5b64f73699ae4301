"""What of a workload its speed depends on, and so what a measurement of one holds for.

Two layers of one shape differ in their scales and zero points, numbers that stand in the same instructions: a network
has many such layers, and the next network has others.  A measurement of one serves them all.
"""

from dataclasses import replace

from hawqtvm.qnn.formats import Format
from schedules.cpu.requantize import FAST_SHIFT
from schedules.workload import AvgPool2d, Conv2d, Dense, Elementwise, Epilogue, Rescaled

ORDINARY_SHIFT = 20  # the kernels treat smaller ones each in its own way
MULTIPLIER = 2**30


def tuning_key(workload):
    """The workload with one representative for all numbers that make the same kernel but for its constants.

    Kept: dims, formats, clips of wide codes, headrooms, whether a zero point is 0, whether shifts are below
    ``FAST_SHIFT``.
    """
    if isinstance(workload, Conv2d):
        changed = replace(workload, x_zero_point=_zero_point(workload.x_zero_point))
        return replace(changed, epilogue=_epilogue(workload.epilogue))
    if isinstance(workload, Dense):
        return replace(workload, epilogue=_epilogue(workload.epilogue))
    if isinstance(workload, Elementwise):
        return replace(_clipped(workload), operands=tuple(_rescaled(operand) for operand in workload.operands))
    if isinstance(workload, AvgPool2d):
        b, c = _dyadic(workload.b, workload.c)
        return replace(_clipped(workload), x_zero_point=_zero_point(workload.x_zero_point), b=b, c=c)
    return workload


def _epilogue(epilogue: Epilogue | None) -> Epilogue | None:
    if epilogue is None:
        return None
    residual = epilogue.residual and _rescaled(epilogue.residual)
    codes = epilogue.codes and replace(_clipped(epilogue.codes), y=_rescaled(epilogue.codes.y))
    return replace(_clipped(epilogue), min_shift=_shift(epilogue.min_shift), residual=residual, codes=codes)


def _rescaled(operand: Rescaled) -> Rescaled:
    b, c = _dyadic(operand.b, operand.c)
    return replace(operand, zero_point=_zero_point(operand.zero_point), b=b, c=c)


def _clipped(maker):
    """``maker`` of codes ``out``, with its zero point and its clip: at the codes' limits, or inside of them."""
    lo, hi = _clip(maker.lo, maker.hi, maker.out)
    return replace(maker, zero_point=_zero_point(maker.zero_point), lo=lo, hi=hi)


def _clip(lo: int, hi: int, out: Format) -> tuple[int, int]:
    least, most = out.limits
    if least < 0:  # a wide code's clip decides how it is made
        return lo, hi
    return least + (lo > least), most - (hi < most)


def _zero_point(zero_point: int) -> int:
    return int(zero_point != 0)


def _dyadic(b: int, c: int) -> tuple[int, int]:
    return (MULTIPLIER, _shift(c)) if c >= ORDINARY_SHIFT else (b, c)


def _shift(c: int) -> int:
    return min(max(c, FAST_SHIFT - 1), FAST_SHIFT) if c >= ORDINARY_SHIFT else c
