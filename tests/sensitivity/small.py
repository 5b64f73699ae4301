"""Small objectives and an in-memory log, as the methods take them."""

import numpy as np

from hawqtvm.data import Images
from hawqtvm.qnn.model import QuantizedModel
from hawqtvm.sensitivity.log import Log
from hawqtvm.sensitivity.objective import Objective
from tests.nets import noise

COUNT = 6


def images(model: QuantizedModel, count: int = COUNT, labels: bool = True) -> Images:
    """Seeded noise, labelled with seeded classes where the model classifies whole images."""
    classes = model.graph.output.dims[0]
    drawn = np.random.default_rng(7).integers(0, classes, count) if labels else None
    return Images(noise(count, model.graph.input_dims, 7), drawn, "noise")


def objective(model: QuantizedModel, labels: bool, count: int = COUNT) -> Objective:
    return Objective(model, images(model, count, labels), labels, 0)


def no_log() -> Log:
    return Log(None, "")
