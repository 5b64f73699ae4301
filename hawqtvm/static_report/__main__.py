"""``python -m hawqtvm.static_report``, which ``scripts/cuda_report`` calls."""

import json
from collections.abc import Sequence
from pathlib import Path

from hawqtvm.console import Parser, Progress, command
from hawqtvm.errors import BadInput
from hawqtvm.files import write_atomic
from hawqtvm.qnn.model import RESIDUALS
from hawqtvm.quantize import quantize_named
from hawqtvm.setting import machine
from hawqtvm.static_report import report
from hawqtvm.static_report.table import markdown
from schedules.target import CudaTarget

MODELS = ("resnet18", "resnet50")


def main(argv: Sequence[str] | None) -> int:
    parser = Parser("static_report", "Compiles the GPU kernels of networks at 8 and 4 bits and says what they are.")
    parser.add_argument(
        "--models",
        nargs="+",
        default=MODELS,
        metavar="MODEL",
        help="known networks, or directories of quantized checkpoints (default: resnet18 resnet50, of random weights)",
    )
    parser.add_argument("--target", default="nvidia/nvidia-t4", help="an NVIDIA GPU (default: %(default)s)")
    parser.add_argument("--batch", metavar="N", type=int, default=8, help="images a call (default: %(default)s)")
    parser.add_argument("--residual", choices=RESIDUALS, default="int16", help="(default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="also write FILE.md and FILE.json")
    options = parser.parse_args(argv)
    _, target = machine(options.batch, None, options.target)
    if not isinstance(target, CudaTarget):
        raise BadInput(f"--target {options.target} is no NVIDIA GPU: the report is of CUDA's machine code")
    models = [quantize_named(name) for name in options.models]
    with Progress("kernels") as step:
        found = report(models, target, options.batch, options.residual, step)
    if options.out:
        write_atomic(Path(f"{options.out}.json"), json.dumps(found) + "\n")
        write_atomic(Path(f"{options.out}.md"), markdown(found))
    print(json.dumps(found) if options.json else markdown(found))
    return 0


if __name__ == "__main__":
    command(main)
