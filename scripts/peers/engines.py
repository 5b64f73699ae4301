"""Opens a built network in one engine. Each engine is imported in its own function, so in its own process."""

from collections.abc import Callable

import numpy as np

# float32 (N, C, H, W) -> float32 (N, classes)
Infer = Callable[[np.ndarray], np.ndarray]


def open_hawqtvm(path: str, batch: int, threads: int) -> Infer:
    """hawqtvm's runtime; the artifact was compiled for this batch and thread count."""
    from hawqtvm.runtime import load

    model = load(path, threads=threads)
    scale = np.float32(model.logits_scale)
    return lambda images: model(images) * scale


def open_onnxruntime(path: str, batch: int, threads: int) -> Infer:
    """ONNX Runtime's CPU provider with every graph optimization, at a fixed batch size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_free_dimension_override_by_name("batch", batch)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def open_openvino(path: str, batch: int, threads: int) -> Infer:
    """OpenVINO's CPU plugin under the LATENCY hint, at a fixed batch size, without copying the input."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    shape = model.input(0).get_partial_shape()
    shape[0] = batch
    model.reshape(shape)
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads})
    request = compiled.create_infer_request()

    def infer(images: np.ndarray) -> np.ndarray:
        request.infer([images], share_inputs=True)
        return request.get_output_tensor(0).data

    return infer


OPENERS: dict[str, Callable[[str, int, int], Infer]] = {
    "hawqtvm": open_hawqtvm,
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
}


def import_hawqtvm() -> None:
    """The runtime and TVM's library."""
    import hawqtvm.runtime.engine

    hawqtvm.runtime.engine.ffi()


def import_onnxruntime() -> None:
    """The package holds all of the engine."""
    import onnxruntime  # noqa: F401


def import_openvino() -> None:
    """The package, and the CPU plugin, which comes with its first use."""
    import openvino

    openvino.Core().get_versions("CPU")


IMPORTERS: dict[str, Callable[[], None]] = {
    "hawqtvm": import_hawqtvm,
    "onnxruntime": import_onnxruntime,
    "openvino": import_openvino,
}
