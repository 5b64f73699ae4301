"""Measures packed kernels on an NVIDIA GPU with Python 3.9 and its driver alone; :mod:`hawqtvm.bundle` packs it."""
