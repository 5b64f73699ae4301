"""GPU kernels on the CPU: what TVM generates for NVIDIA, run bit for bit and checked, where no GPU is."""

from hawqtvm.emulator.emulated import Emulated

__all__ = ["Emulated"]
