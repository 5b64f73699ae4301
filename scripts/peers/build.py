"""Builds one model for one engine: `python -m scripts.peers.build JOB` with JOB a JSON object; runs once, then cached.

JOB: {"engine", "model", "folder", "sources", "cases": [[system, batch, threads], ...]}. Engine "onnx" makes what the
others start from: the seeded network as ONNX and the check file, see `systems.Build`.
Every file or folder appears whole or not at all, so what exists is done.
"""

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scripts.peers.systems import SYSTEMS, Build, Case

CALIBRATION_IMAGES = 8
CHECK_IMAGES = 2


def calibration_batches(model: str) -> list[np.ndarray]:
    """The same few noise images for every system: float32 (1, C, H, W) each."""
    from hawqtvm.data import load_images
    from hawqtvm.models import MODELS

    images = load_images("random", MODELS[model].input_shape, limit=CALIBRATION_IMAGES).images
    return list(images[:, None])


def whole(path: Path, make: Callable[[Path], None]) -> None:
    """Let `make` write a file beside `path`, then rename it; do nothing if `path` exists."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"unfinished-{path.name}")
    make(beside)
    beside.rename(path)


def build_onnx(job: dict) -> None:
    """The float32 network and its logits on the check images."""
    import torch

    from hawqtvm.models import load_model

    build, model = build_of(job), job["model"]
    module = load_model(model).module
    images = torch.from_numpy(np.concatenate(calibration_batches(model)[:CHECK_IMAGES]))

    def export(path: Path) -> None:
        # the exporter that needs no further package, and folds batch norm
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                module,
                (images[:1],),
                str(path),
                dynamo=False,
                opset_version=17,
                input_names=["images"],
                output_names=["logits"],
                dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            )

    def check(path: Path) -> None:
        with torch.no_grad(), path.open("wb") as file:
            np.savez(file, images=images.numpy(), logits=module(images).numpy())

    whole(build.float32(model), export)
    whole(build.check(model), check)


def build_onnxruntime(job: dict) -> None:
    """Static QDQ with u8 activations and symmetric s8 weights for each channel: the fast kind on VNNI."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter(calibration_batches(job["model"]))

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    build = build_of(job)
    for case in cases(job):
        whole(
            build.network(*case),
            lambda path: quantize_static(
                str(build.float32(job["model"])),
                str(path),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=False,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
            ),
        )


def build_openvino(job: dict) -> None:
    """Post-training quantization by NNCF with its default preset."""
    import nncf
    import openvino

    build, model = build_of(job), job["model"]
    path = build.network("openvino", cases(job)[0][1])
    if path.exists():
        return
    batches = calibration_batches(model)
    network = openvino.Core().read_model(build.float32(model))
    quantized = nncf.quantize(network, nncf.Dataset(batches), subset_size=len(batches))
    beside = path.with_name("unfinished-openvino.xml")
    openvino.save_model(quantized, beside, compress_to_fp16=False)
    # the .xml goes last: its presence says that the .bin is there
    beside.with_suffix(".bin").rename(path.with_suffix(".bin"))
    beside.rename(path)


def build_hawqtvm(job: dict) -> None:
    """Quantize once, then compile every (system, batch, threads) asked for."""
    from hawqtvm.deploy import deploy
    from hawqtvm.models import load_model
    from hawqtvm.quantize import quantize

    build, model = build_of(job), job["model"]
    missing = [case for case in cases(job) if not build.network(*case).exists()]
    if not missing:
        return
    quantized = quantize(load_model(model).module, calibration_batches(model), name=model)
    for name, case in missing:
        system, path = SYSTEMS[name], build.network(name, case)
        # what an older compiler left is of no use to anyone
        for stale in path.parent.glob(f"{name}-b{case.batch}-t{case.threads}-*"):
            shutil.rmtree(stale)
        deploy(
            quantized,
            bits=system.bits,
            batch=case.batch,
            threads=case.threads,
            residual=system.residual,
            out=path,
            measure=False,
            verify=False,
        )


def build_of(job: dict) -> Build:
    """The job's folder."""
    return Build(Path(job["folder"]), job["sources"])


def cases(job: dict) -> list[tuple[str, Case]]:
    """The job's (system, case) pairs."""
    return [(system, Case(job["model"], batch, threads)) for system, batch, threads in job["cases"]]


BUILDERS = {
    "onnx": build_onnx,
    "onnxruntime": build_onnxruntime,
    "openvino": build_openvino,
    "hawqtvm": build_hawqtvm,
}

if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    BUILDERS[request["engine"]](request)
