"""The same float networks in PyTorch on the GPU: float16, channels last, by cuDNN.

PyTorch has no 8-bit convolution for NVIDIA GPUs; this is what a user has there instead.
"""

import statistics

import torch

from hawqtvm.errors import BadInput
from hawqtvm.models import load_model

WARM_UP, RUNS = 20, 50


def peer(name: str, batch: int) -> dict:
    """Milliseconds of a call by events, median; BadInput where this PyTorch does not use the GPU."""
    if not torch.cuda.is_available():
        raise BadInput(f"PyTorch {torch.__version__} does not use the GPU: install a build for CUDA")
    torch.backends.cudnn.benchmark = True
    loaded = load_model(name, None)
    module = loaded.module.to("cuda", torch.float16, memory_format=torch.channels_last)
    images = torch.randn(batch, *loaded.input_shape, device="cuda", dtype=torch.float16)
    images = images.contiguous(memory_format=torch.channels_last)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    with torch.inference_mode():
        for _ in range(WARM_UP + RUNS):
            start.record()
            module(images)
            stop.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(stop))
    return {
        "model": name,
        "what": "PyTorch float16, channels last",
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "ms": statistics.median(times[WARM_UP:]),
    }
