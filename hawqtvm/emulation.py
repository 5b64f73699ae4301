"""An artifact for a GPU on a machine without one, as verify needs it."""

import numpy as np

from hawqtvm.compile import Library
from hawqtvm.emulator.program import EmulatedProgram
from hawqtvm.runtime.artifact import Artifact
from schedules.target import find_target


class EmulatedModel:
    """What :func:`hawqtvm.verify.verify_model` needs of :class:`hawqtvm.runtime.Model`."""

    def __init__(self, artifact: Artifact, library: Library):
        self.artifact, self.manifest = artifact, artifact.manifest
        self.input_shape, self.batch = artifact.input_shape, artifact.input_shape[0]
        target = find_target(self.manifest["target"]["name"])
        self._program = EmulatedProgram(library.program, library.kernels, target)

    def trace(self, codes: np.ndarray) -> dict[str, np.ndarray]:
        """As :meth:`hawqtvm.runtime.Model.trace`, of uint8 codes.  Raises as :meth:`EmulatedProgram.run`."""
        return self._program.trace(codes)
