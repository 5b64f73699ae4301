"""What the callbacks of `Model.profile` add to a layer's time: the times of layers that do next to nothing."""

from pathlib import Path

import numpy as np
from tvm import relax, te

from hawqtvm.files import sha256_file
from hawqtvm.runtime import Model
from hawqtvm.runtime.artifact import Artifact
from hawqtvm.runtime.engine import Program
from relay_passes.executable import build
from relay_passes.lift import lift
from schedules.target import find_target

LAYERS = 50
RUNS = 20
SHAPE = (1, 1, 1, 1)


def copying_model(directory: Path) -> Model:
    """A network of `LAYERS` layers that copy one uint8 code, its library in `directory`."""
    library, codes = directory / "model.so", relax.TensorType(SHAPE, "uint8")
    blocks = relax.BlockBuilder()
    x = te.placeholder(SHAPE, "uint8", name="x")
    copy = te.create_prim_func([x, te.compute(SHAPE, lambda *at: x(*at), name="copy")]).without_attr("global_symbol")
    # the layers are told apart by their kernels' names
    kernels = [blocks.add_func(copy.with_attr("layer", f"copy{n}"), f"copy{n}") for n in range(LAYERS)]
    for name in ("main", "quantize_input"):
        images = relax.Var("images", codes)
        with blocks.function(name, [images]):
            with blocks.dataflow():
                value = images
                for kernel in kernels:
                    value = blocks.emit(relax.call_tir(kernel, [value], out_ty=codes))
                value = blocks.emit_output(value)
            blocks.emit_func_output(value)
    build(lift(blocks.get()), find_target("x86-64").tvm).export_library(str(library))
    digest = sha256_file(library)
    layer_of = {kernel.name_hint: kernel.name_hint for kernel in kernels}
    artifact = Artifact(directory, library, digest, None, (), 1, SHAPE, SHAPE, 1.0, layer_of, {}, {})
    return Model(artifact, Program(library, digest), 1)


def callback_times(model: Model) -> list[float]:
    """Seconds that each layer of the copying model seems to take, `RUNS` times."""
    found = model.profile(np.zeros(SHAPE, "uint8"), RUNS)
    return [seconds for samples in found.values() for seconds in samples]
