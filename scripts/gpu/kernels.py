"""Bundles made, run and brought home; in processes of their own."""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hawqtvm.console import note
from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.runner import sanitize
from hawqtvm.runner.command import BAD_INPUT
from hawqtvm.runner.driver import Facts

PLACE = Path("artifacts")


def packed(model: str, arch: str, batch: int, trials: int) -> Path:
    """The bundle of a model at 8 and 4 bits; BadInput where TVM or nvcc is missing, CheckFailed where none compiles."""
    if not has_tvm():
        raise BadInput("TVM is not installed, which makes bundles: give --bundles made elsewhere")
    path = PLACE / f"{model}-{arch}.pyz"
    words = ["--model", model, "--target", arch, "--batch", batch, "--trials", trials, "--bundle", path]
    if _run("a bundle", ["-m", "hawqtvm.tune", *words]):
        raise CheckFailed(f"the bundle {path} was not made, see above")
    return path


def measured(bundle: Path, facts: Facts, logs: Path) -> dict:
    """``{"bundle", "results"}``, names of files; CheckFailed where a kernel is wrong, once all results are kept."""
    results = PLACE / f"{bundle.stem}-{facts.folder}.jsonl"
    PLACE.mkdir(exist_ok=True)
    wrong = _run(str(bundle), [bundle, "--out", results, "--device", 0])
    if has_tvm():
        _run("the results", ["-m", "hawqtvm.tune", "--results", results, "--out", logs])
    else:
        note(f"TVM is not installed: python -m hawqtvm.tune --results {results} where it is")
    if wrong:
        raise CheckFailed(f"{bundle} has kernels that are wrong, see {results}")
    return {"bundle": bundle.name, "results": str(results)}


def sanitized(bundles: Sequence[Path]) -> str:
    """What compute-sanitizer says of the default of each workload; CheckFailed where it finds something."""
    if sanitize.find() is None:
        return "not installed"
    codes = [_run("compute-sanitizer", [bundle, "--sanitize", "--device", 0]) for bundle in bundles]
    if any(codes):
        raise CheckFailed("compute-sanitizer finds faults, see above")
    return "clean"


def has_tvm() -> bool:
    return importlib.util.find_spec("tvm") is not None


def _run(what: str, arguments: Sequence[object]) -> int:
    """Python's exit code, 0 or 1; BadInput for that of bad input, CheckFailed for any other."""
    code = subprocess.run([sys.executable, *map(str, arguments)], stdout=sys.stderr).returncode
    if code == BAD_INPUT:
        raise BadInput(f"{what} could not be had, see above")
    if code not in (0, 1):
        raise CheckFailed(f"{what} ended with exit code {code}")
    return code
