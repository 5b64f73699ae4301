"""From accumulators in registers to the packed codes of each output."""

from tvm.tirx.script.builder import ir as T

from schedules.cpu.codes import load_codes, pack_codes
from schedules.cpu.narrow import NarrowScale, fits_narrow, narrow_codes
from schedules.cpu.requantize import Scale, fast_epilogue, operand_term, sum_of_terms
from schedules.cpu.requantize_codes import requantize_codes
from schedules.target import CpuTarget
from schedules.workload import Epilogue


def finish(
    target: CpuTarget,
    values: list,
    scale: Scale | NarrowScale,
    residual,
    pixels: list,
    neighbours: int,
    epilogue: Epilogue,
) -> list[list]:
    """The vectors of each output, packed as by :func:`pack_codes`.

    ``values``: int32x16 accumulators of ``pixels``, 16 channels each.  ``residual``: a flat buffer, if there is one.
    ``neighbours``: how many of the pixels follow one another in memory.
    """
    if isinstance(scale, NarrowScale):
        return narrow_codes(target, values, scale, residual, pixels, neighbours, epilogue)
    values = [
        T.bind(rescale(value, scale, residual, pixel, epilogue)) for value, pixel in zip(values, pixels, strict=True)
    ]
    made = [pack_codes(target, values, epilogue)]
    return [*made, requantize_codes(target, values, made[0], epilogue)] if epilogue.codes else made


def finish_cycles(epilogue: Epilogue | None) -> float:
    """Of requantizing 16 accumulators, about, on a core with two 512-bit operations a cycle."""
    if epilogue is None:
        return 0
    return (1.25 if fits_narrow(epilogue) else 3.5) * (2 if epilogue.residual else 1)


def rescale(value, scale: Scale, residual, pixel, epilogue: Epilogue):
    """int32x16 of a pixel, rescaled, plus the codes of ``residual`` there and the zero point, up to the clip."""
    fast = fast_epilogue(epilogue)
    terms = [(value, scale)]
    if epilogue.residual:
        codes = load_codes(residual, pixel, epilogue.residual.format)
        terms.append(operand_term(codes, epilogue.residual, fast))
    return sum_of_terms(terms, epilogue.zero_point, epilogue.lo, epilogue.hi, fast)
