"""Runs an artifact with numpy, tvm_ffi and TVM's runtime library: no compiler, no torch.

``model = load("artifact"); logits = model(images)``
"""

from hawqtvm.runtime.model import Model, load

__all__ = ["Model", "load"]
