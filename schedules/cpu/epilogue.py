"""An epilogue's arithmetic on accumulators in registers, up to the clip."""

from schedules.cpu.codes import load_codes
from schedules.cpu.requantize import Scale, fast_epilogue, operand_term, sum_of_terms
from schedules.workload import Epilogue


def rescale(value, scale: Scale, residual, pixel, epilogue: Epilogue):
    """int32x16 of a pixel, rescaled, plus the codes of ``residual`` (a flat buffer) there and the zero point."""
    fast = fast_epilogue(epilogue)
    terms = [(value, scale)]
    if epilogue.residual:
        codes = load_codes(residual, pixel, epilogue.residual.format)
        terms.append(operand_term(codes, epilogue.residual, fast))
    return sum_of_terms(terms, epilogue.zero_point, epilogue.lo, epilogue.hi, fast)
