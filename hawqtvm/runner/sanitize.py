"""Runs the checks under NVIDIA's compute-sanitizer, where it is installed."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from . import attempt
from .bundle import Bundle

TOOLS = ("memcheck", "racecheck")
FOUND = 86  # exit code that the sanitizer is asked for
SILENCE = 900.0  # seconds: it slows kernels down hundredfold
USUAL_PLACE = "/usr/local/cuda/bin"


def find() -> str | None:
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=USUAL_PLACE)


def sanitized(program: str, bundle: Bundle, number: int, device: int, count: int) -> dict[str, str]:
    """{tool: what it found in the first ``count`` candidates of a workload}, without those that found nothing.

    The worker's own findings count, too: a wrong output, a fault.
    """
    found, left_out = {}, list(range(len(bundle.workloads[number]["candidates"])))[count:]
    for tool in TOOLS:
        with tempfile.TemporaryDirectory(prefix="hawqtvm-") as place:
            log = Path(place, "log")
            before = [program, "--tool", tool, "--error-exitcode", str(FOUND), "--log-file", str(log)]
            ran = attempt.run(bundle.path, number, device, left_out, False, SILENCE, before)
            text = log.read_text(errors="replace") if log.is_file() else ""
        wrong = "; ".join(f"candidate {index}: {error}" for index, error in ran.findings.errors.items())
        if ran.code or wrong:
            print(text, file=sys.stderr)
            found[tool] = wrong or ran.fault or f"exit code {ran.code}"
    return found
