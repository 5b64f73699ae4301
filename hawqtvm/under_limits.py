"""Bits for a network under limits: runs the stages between quantizing and deploying that have no result yet."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from hawqtvm.allocate.limits import parsed
from hawqtvm.allocate.problem import LIMITED
from hawqtvm.console import Parser
from hawqtvm.errors import BadInput
from hawqtvm.files import parse_json
from hawqtvm.plan import Plan
from hawqtvm.setting import check_processor, machine, packs

if TYPE_CHECKING:
    from hawqtvm.data import Images
    from hawqtvm.qnn.model import QuantizedModel

Limits = dict[str, str]


@dataclass(frozen=True)
class Setting:
    """What a program is built for, as :func:`hawqtvm.deploy.deploy` takes it."""

    batch: int
    target: str
    threads: int | None
    residual: str
    activations: str
    tuning_logs: str | None

    @staticmethod
    def of(options) -> "Setting":
        """From a command's options."""
        return Setting(**{field.name: getattr(options, field.name) for field in fields(Setting)})

    def resolved(self) -> dict:
        """With the number of threads and the target that the defaults stand for."""
        threads, level = machine(self.batch, self.threads, self.target)
        return vars(self) | {"threads": threads, "target": level.name}


def add_limits(parser: Parser) -> None:
    for name, example in zip(LIMITED, ("8MB", "100G", "4.2ms"), strict=True):
        parser.add_argument(
            f"--{name}",
            metavar="L",
            help=f"instead of --bits: chosen under this limit, a fraction between all 4 and all 8, or as {example}",
        )


def limits_of(options) -> Limits:
    """The limits that were given; BadInput where bits were too, or where one makes no sense."""
    limits = {name: getattr(options, name) for name in LIMITED if getattr(options, name) is not None}
    for name, limit in limits.items():
        parsed(name, limit)
    if "latency" in limits:
        check_processor(options.target, "--latency")
    if limits and options.bits is not None:
        raise BadInput(f"--bits and --{next(iter(limits))}: give bits, or limits to choose them under")
    return limits


def choose_bits(
    quantized: "QuantizedModel", checkpoint: str, images: "Images", limits: Limits, folder: Path, setting: Setting
) -> Plan:
    """The allocator's plan; what it is made from is kept in ``folder`` as <model>.sensitivity.json and .latency.json.

    Latency is tuned for and measured only where it is limited.  Raises BadInput (limits that make no sense or that no
    plan meets, a target this machine cannot run) and CheckFailed (no plan found in time).
    """
    from hawqtvm.allocate import allocate
    from hawqtvm.allocate.inputs import measured_problem
    from hawqtvm.latency import described, latency
    from hawqtvm.sensitivity import sensitivity

    risk, times = (folder / f"{quantized.name}.{stage}.json" for stage in ("sensitivity", "latency"))
    sensitivity(quantized, images, out=risk, checkpoint_sha256=checkpoint)
    if "latency" in limits:
        tune_what_is_missing(quantized, setting)
        holds_for = described(quantized.name, checkpoint, **setting.resolved())
        if not holds(times, holds_for):
            latency(quantized, **vars(setting), out=times, checkpoint_sha256=checkpoint)
    problem = measured_problem(quantized, checkpoint, risk, times if "latency" in limits else None)
    return allocate(problem, **limits).plan("-".join(f"{name}-{limit}" for name, limit in limits.items()))


def holds(path: Path, setting: dict) -> bool:
    """Whether a latency profile is there and of this setting."""
    if not path.is_file():
        return False
    found = parse_json(path, "latency profile", "remove it")
    return isinstance(found, dict) and all(found.get(key) == value for key, value in setting.items())


def tune_what_is_missing(quantized: "QuantizedModel", setting: Setting) -> None:
    """Measures schedules for the network at 4 and at 8 bits if there is a workload that no log knows."""
    from hawqtvm.deploy import logs_folder
    from hawqtvm.qnn.model import Arithmetic
    from hawqtvm.tune import tune
    from hawqtvm.tune.layers import distinct_workloads
    from relay_passes.context import Context
    from schedules.tuned import SHIPPED, load_tuned
    from schedules.tuning_log import this_device

    threads, level = machine(setting.batch, setting.threads, setting.target)
    logs = logs_folder(setting.tuning_logs)
    tuned = load_tuned(level, threads, this_device(), (logs, SHIPPED))
    for bits in (8, 4):
        arithmetic = Arithmetic(quantized, quantized.bits(bits), setting.residual)
        context = Context(arithmetic, setting.batch, level, threads, packs(setting.activations, level))
        if not all(tuned.ranked(workload, level, threads) for workload in distinct_workloads(context)):
            options = {name: value for name, value in vars(setting).items() if name != "tuning_logs"}
            tune(quantized, **options, out=logs)
            return
