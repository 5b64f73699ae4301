"""Stage 5, the main job: a quantized model and a plan -> a verified, measured artifact."""

import json
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hawqtvm.console import Parser, command, note, print_json, table
from hawqtvm.errors import BadInput
from hawqtvm.plan import Plan, load_plan, uniform
from hawqtvm.runtime.artifact import KIND, MANIFEST
from hawqtvm.setting import ARTIFACTS, TUNING_LOGS, add_options, checkpoint_place, machine, packs, planned

if TYPE_CHECKING:
    from hawqtvm.data import Images
    from hawqtvm.emulation import EmulatedModel
    from hawqtvm.qnn.model import QuantizedModel
    from hawqtvm.runtime import Model
    from schedules.target import Target

PROFILE_SECONDS = 2.0


@dataclass(frozen=True)
class Deployment(os.PathLike):
    """An artifact and what was found of it; stands for its path.

    ``layers``: a dict a kernel (name, op, shape, bits, schedule, ms, share, exact); ``network``: ms, images/s, bytes,
    accuracy.  What was not measured is None.
    """

    path: Path
    layers: list[dict]
    network: dict

    def __fspath__(self) -> str:
        return str(self.path)


def deploy(
    quantized: "QuantizedModel",
    bits: "dict[str, int] | int | Plan" = 8,
    batch: int = 1,
    out: str | os.PathLike | None = None,
    *,
    target: str = "native",
    threads: int | None = None,
    residual: str = "int16",
    activations: str = "bytes",
    tuning_logs: str | os.PathLike | None = None,
    verify: bool = True,
    measure: bool = True,
    labelled: "Images | None" = None,
    checkpoint_sha256: str | None = None,
) -> Deployment:
    """Compiles a quantized model under a plan into the directory ``out`` and proves and measures what it built.

    ``bits``: 8, 4, {layer: 4 or 8} (layers not named take 8) or a Plan.  ``threads``: what the kernels are shaped for
    (default: the CPUs of this process; on a GPU always 1).  ``residual``: the stream's "int16", "int32" or "uint8".
    ``activations``: those of 4 bits in "bytes" or eight in "words", as on a GPU always.  ``tuning_logs``: a folder of
    measured schedules, used beside those that come with hawqtvm (default: "tuning_logs", if there is one).
    ``labelled``: images with labels, for the accuracy.  ``out`` appears whole or not at all (default:
    artifacts/<model>-<plan>).
    Raises BadInput (a plan that does not fit, an unknown target, a place that cannot be written) and CheckFailed (a
    proof that fails, a library that differs from PyTorch).
    """
    from hawqtvm.checkpoint import weights_sha256, write_checkpoint
    from hawqtvm.compile import compile_library, provenance
    from hawqtvm.emulation import EmulatedModel
    from hawqtvm.files import atomic_directory
    from hawqtvm.qnn.model import Arithmetic
    from hawqtvm.runtime import load
    from hawqtvm.runtime.artifact import read_artifact
    from hawqtvm.verify import REFERENCE
    from relay_passes.context import Context
    from schedules.target import CudaTarget
    from schedules.tuned import SHIPPED, load_tuned
    from schedules.tuning_log import device_for as logged_device
    from schedules.tuning_log import this_device

    plan = bits if isinstance(bits, Plan) else Plan(bits, "plan") if isinstance(bits, dict) else uniform(bits)
    plan.check_belongs(quantized.name, checkpoint_sha256 or (plan.checkpoint and weights_sha256(quantized)))
    layer_bits = quantized.bits(plan.bits)
    threads, level = machine(batch, threads, target)
    out = Path(out) if out is not None else default_out(quantized.name, plan.name)
    here = {"device": this_device().folder, "target": level.name, "threads": threads, "batch": batch}
    if elsewhere := plan.made_elsewhere(here | {"residual": residual, "activations": activations}):
        note(f"{plan.name} was made for {elsewhere}: its latency here is another, and another plan may be better")
    tuned = load_tuned(level, threads, logged_device(level), (logs_folder(tuning_logs), SHIPPED))
    device = device_for(level)
    arithmetic = Arithmetic(quantized, layer_bits, residual)
    context = Context(arithmetic, batch, level, threads, packs(activations, level), tuned)
    with atomic_directory(out, MANIFEST, KIND) as directory:
        library = compile_library(context, directory)
        manifest = library.manifest
        (directory / REFERENCE).mkdir()
        digest = write_checkpoint(quantized, directory / REFERENCE)
        manifest |= {
            "plan": {**plan.to_json(), "name": plan.name, "model": quantized.name, "bits": layer_bits},
            "provenance": provenance() | {"checkpoint_sha256": digest, "quantization": quantized.provenance},
        }
        (directory / MANIFEST).write_text(json.dumps(manifest, indent=1))
        if device is None:
            emulated = verify and isinstance(level, CudaTarget)
            if verify or measure:
                done = "verified in emulation, not" if emulated else "neither verified nor"
                note(f"this machine cannot run {level.name}: built, {done} measured")
            verify, measure, labelled = emulated, False, None
        model = None
        if verify or measure or labelled is not None:
            model = load(directory) if device else EmulatedModel(read_artifact(directory), library)
        layers, network = examine(manifest, quantized, model, device, verify, measure, labelled)
        manifest["measured"] = network
        (directory / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return Deployment(out, layers, network)


def logs_folder(named: str | os.PathLike | None) -> Path:
    """The user's folder of tuning logs: as named, which must be there, or the default, which need not."""
    if named is not None and not Path(named).is_dir():
        raise BadInput(f"no such folder of tuning logs: {named}; python -m hawqtvm.tune writes one")
    return Path(named or TUNING_LOGS)


def default_out(model: str, plan: str) -> Path:
    name = plan if plan.startswith(model) else f"{model}-{plan}"
    return ARTIFACTS / re.sub(r"[^A-Za-z0-9_.-]", "-", name)


def device_for(target: "Target") -> str | None:
    """What here runs libraries for a target, by its name; None where nothing does."""
    from hawqtvm.runtime import cpu, gpu
    from schedules.target import CudaTarget

    if isinstance(target, CudaTarget):
        found = gpu.find(target.arch)
        return found and found.name
    return cpu.cpu_name() if cpu.cpu_features().issuperset(target.features) else None


def examine(
    manifest: dict,
    quantized: "QuantizedModel",
    model: "Model | EmulatedModel | None",
    device: str | None,
    verify: bool,
    measure: bool,
    labelled: "Images | None",
) -> tuple[list[dict], dict]:
    """Verifies, times and scores a built artifact: the rows of its two tables.

    ``model``: the artifact, if any of that is to be done; on ``device``, or without one emulated, to be verified only.
    """
    from hawqtvm.qnn.reference import float_logits
    from hawqtvm.source import accuracy
    from hawqtvm.verify import verify_model

    exact = {row.layer: True for row in verify_model(model)} if verify else {}
    network = {
        "model": manifest["model"],
        "weights": manifest["weights"],
        "plan": manifest["plan"]["name"],
        "batch": manifest["input"]["shape"][0],
        "threads": manifest["threads"],
        "target": manifest["target"]["name"],
        "residual": manifest["residual"],
        "ms": None,
        "images_per_second": None,
        "weight_bytes": manifest["size"]["weights"],
        "expanded_weight_bytes": manifest["size"]["expanded_weights"],
        "library_bytes": manifest["size"]["library"],
        "accuracy_float": None,
        "accuracy_int": None,
        "exact": True if verify else None,
        "verified": (f"run on {device}" if device else "executed in emulation") if verify else None,
    }
    seconds = {}
    if measure:
        once = statistics.median(model.measure(repeats=3, warmup=1))
        repeats = max(5, min(200, int(PROFILE_SECONDS / once)))
        network["ms"] = 1e3 * statistics.median(model.measure(repeats=repeats, warmup=2))
        network["images_per_second"] = 1e3 * model.batch / network["ms"]
        codes = np.random.default_rng(0).integers(0, 256, model.input_shape, "uint8")
        seconds = {name: statistics.median(s) for name, s in model.profile(codes, repeats).items()}
    if labelled is not None:
        network["accuracy_int"] = accuracy(model.run_all(labelled.images), labelled.labels)
        parts = [float_logits(quantized, labelled.images[i : i + 64]) for i in range(0, len(labelled), 64)]
        network["accuracy_float"] = accuracy(np.concatenate(parts), labelled.labels)
    total = sum(seconds.values())
    layers = [
        {
            "name": k["name"],
            "op": k["op"],
            "shape": k["output"]["dims"],
            "bits": k["bits"],
            "schedule": k["schedule"],
            "config_source": k["config_source"],
            "macs": k["macs"],
            "ms": 1e3 * seconds[k["name"]] if seconds else None,
            "share": seconds[k["name"]] / total if seconds else None,
            "exact": exact.get(k["name"]),
        }
        for k in manifest["layers"]
    ]
    return layers, network


def show(deployment: Deployment) -> str:
    """The two tables: a row a layer, and the network."""

    def cell(value, text: str = "{}") -> str:
        return "-" if value is None else text.format(value)

    def fact(value, text: str) -> str:
        return "not measured" if value is None else text.format(value)

    rows = [
        [
            r["name"],
            r["op"].removeprefix("qnn."),
            "x".join(map(str, r["shape"])),
            cell(r["bits"]),
            r["schedule"],
            cell(r["ms"], "{:.3f}"),
            cell(r["share"] and 100 * r["share"], "{:.1f}%"),
            "yes" if r["exact"] else "-",
        ]
        for r in deployment.layers
    ]
    n = deployment.network
    facts = [
        ("model", n["model"] + ("" if n["weights"] == "trained" else f" ({n['weights']})")),
        ("plan", n["plan"]),
        ("batch, threads", f"{n['batch']}, {n['threads']}"),
        ("target, residual", f"{n['target']}, {n['residual']}"),
        ("measured schedules", f"{sum(r['config_source'] == 'measured' for r in deployment.layers)} of {len(rows)}"),
        ("latency", fact(n["ms"], "{:.3f} ms")),
        ("throughput", fact(n["images_per_second"], "{:.0f} images/s")),
        ("weights", f"{n['weight_bytes'] / 1e6:.3f} MB"),
        ("expanded when loaded", f"{n['expanded_weight_bytes'] / 1e6:.3f} MB"),
        ("library", f"{n['library_bytes'] / 1e6:.3f} MB"),
        ("accuracy, float", fact(n["accuracy_float"], "{:.2f} %")),
        ("accuracy, integer", fact(n["accuracy_int"], "{:.2f} %")),
        ("equal to PyTorch", f"yes, every code of every tensor, {n['verified']}" if n["exact"] else "not verified"),
        ("artifact", deployment.path),
    ]
    headers = ["layer", "operator", "shape", "bits", "schedule", "ms", "share", "exact?"]
    return table(headers, rows) + "\n\n" + table(["network", ""], facts)


def main(argv: Sequence[str] | None) -> int:
    from hawqtvm import source as sources
    from hawqtvm.files import check_directory
    from hawqtvm.quantize import quantize_source
    from hawqtvm.under_limits import Setting, add_limits, choose_bits, limits_of

    parser = Parser("deploy", "Builds, verifies and measures an integer-only library from a model and a plan of bits.")
    parser.add_argument("--bits", help="a plan.json, or 4 or 8 for all layers (default: 8)")
    sources.add_options(parser)
    add_options(parser)
    add_limits(parser)
    parser.add_argument(
        "--tuning-logs",
        metavar="DIR",
        help="schedules measured with hawqtvm.tune, beside those that come with hawqtvm (default: tuning_logs, if any)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="the artifact's directory; the quantized model is kept beside it (default: artifacts/<model>-<plan>)",
    )
    options = parser.parse_args(argv)
    limits = limits_of(options)
    plan, source = load_plan(options.bits or "8"), sources.from_options(options)
    machine(options.batch, options.threads, options.target)  # before the long work, as the place below
    logs_folder(options.tuning_logs)
    source = planned(source, plan)
    if options.out:
        check_directory(options.out, MANIFEST, KIND)
    folder = Path(options.out).parent if options.out else ARTIFACTS
    quantized, digest = quantize_source(source, checkpoint_place(source, folder))
    plan.check_belongs(quantized.name, digest)  # before images are loaded
    quantized.bits(plan.bits)
    if limits:
        weights = quantized.provenance.get("weights")
        images = sources.calibration_images(source, quantized.name, quantized.graph.input_dims, weights)
        plan = choose_bits(quantized, digest, images, limits, folder, Setting.of(options))
    result = deploy(
        quantized,
        plan,
        options.batch,
        options.out,
        target=options.target,
        threads=options.threads,
        residual=options.residual,
        activations=options.activations,
        tuning_logs=options.tuning_logs,
        labelled=sources.labelled_images(source, quantized),
        checkpoint_sha256=digest,
    )
    if result.network["weights"] != "trained":
        note(f"{result.network['model']}: {result.network['weights']}")
    if options.json:
        print_json({"artifact": str(result.path), "network": result.network, "layers": result.layers})
    else:
        print(show(result))
    return 0


if __name__ == "__main__":
    command(main)
