"""What a program is built for: its bits, batch, threads, target and residual stream, as a command's options say."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hawqtvm.console import Parser
from hawqtvm.errors import BadInput
from hawqtvm.qnn.model import RESIDUALS

if TYPE_CHECKING:
    from hawqtvm.plan import Plan
    from hawqtvm.source import Source
    from schedules.target import Target

ARTIFACTS = Path("artifacts")
TUNING_LOGS = Path("tuning_logs")
ACTIVATIONS = ("bytes", "words")  # how codes of 4 bits lie: the index says whether packed


def add_options(parser: Parser) -> None:
    """``--target``, ``--batch``, ``--threads``, ``--residual`` and ``--activations``."""
    parser.add_argument(
        "--target",
        default="native",
        help="native, avx512-vnni, avx-vnni, avx2, x86-64, or an NVIDIA GPU as nvidia/nvidia-t4 or sm_75 "
        "(default: %(default)s)",
    )
    parser.add_argument("--batch", metavar="N", type=int, default=1, help="images a call (default: %(default)s)")
    parser.add_argument(
        "--threads",
        metavar="N",
        type=int,
        help="threads a call (default: the CPUs this process may use; on a GPU always 1)",
    )
    parser.add_argument(
        "--residual", choices=RESIDUALS, default="int16", help="type of the residual stream (default: %(default)s)"
    )
    parser.add_argument(
        "--activations",
        choices=ACTIVATIONS,
        default=ACTIVATIONS[0],
        help="4-bit activations in bytes, or eight in an int32 word: half the memory, slower; on a GPU always words "
        "(default: %(default)s)",
    )


def packs(activations: str, target: "Target") -> bool:
    """Whether 4-bit activations lie in words, as a GPU needs; BadInput for anything else than "bytes" or "words"."""
    from schedules.target import CudaTarget

    if activations not in ACTIVATIONS:
        raise BadInput(f"activations {activations!r}: choose {' or '.join(ACTIVATIONS)}")
    return isinstance(target, CudaTarget) or bool(ACTIVATIONS.index(activations))


def machine(batch: int, threads: int | None, target: str) -> "tuple[int, Target]":
    """The threads, 1 for a GPU, and what to compile for; BadInput when they or the batch make no sense."""
    from schedules.target import CudaTarget, find_target

    threads = len(os.sched_getaffinity(0)) if threads is None else threads
    for name, value in (("batch", batch), ("threads", threads)):
        if type(value) is not int or value < 1:
            raise BadInput(f"{name} {value!r}: give a whole number, 1 or more")
    found = find_target(target)
    return (1 if isinstance(found, CudaTarget) else threads), found


def check_processor(target: str, stage: str) -> None:
    """BadInput for a GPU, on which this stage does not measure yet."""
    from schedules.target import CudaTarget, find_target

    if isinstance(found := find_target(target), CudaTarget):
        raise BadInput(
            f"{stage} measures on processors only, not on {found.name}: deploy for a GPU without it, or tune --bundle"
        )


def planned(source: "Source", plan: "Plan") -> "Source":
    """The source, with the plan's model where it names none; BadInput where they name two."""
    from hawqtvm.source import DEFAULT_MODEL

    if source.model is not None:
        plan.check_belongs(source.model, None)
    elif not source.quantized:
        return replace(source, model=plan.model or DEFAULT_MODEL)
    return source


def checkpoint_place(source: "Source", folder: Path) -> Path | None:
    """Where in a folder the quantized model of a source is kept; None for one that is quantized already."""
    if source.quantized:
        return None
    return folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', source.model)}.checkpoint"
