"""How kernels become machine code."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tvm
import tvm_ffi

# It shrinks buffers to what is accessed, which the CPU's kernels allocate to begin with, and takes most of the time
# that unrolled ones take.
NEEDLESS = ["s_tir.CompactBufferAllocation"]
POSTPROCESS = "tvm_callback_cuda_postproc"
FALLBACK = "TVM_COMPILE_FORCE_FALLBACK"


def compiled(mod, target: tvm.target.Target, **options) -> tvm.runtime.Executable:
    """``tvm.compile`` of a PrimFunc or a module; kernels for a CPU allocate no more than they use."""
    needless = NEEDLESS if target.kind.name == "llvm" else []
    with tvm.transform.PassContext(disabled_pass=needless):
        return tvm.compile(mod, target=target, **options)


class _NoGpu:
    """The environment's variable is set from the first thread's entry to the last one's exit."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, None

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = os.environ.get(FALLBACK)
                os.environ[FALLBACK] = "1"
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                del os.environ[FALLBACK]
                if self._before is not None:
                    os.environ[FALLBACK] = self._before


_NO_GPU = _NoGpu()


@contextmanager
def no_gpu() -> Iterator[None]:
    """While inside, what is compiled for a GPU is text: TVM compiles nothing for the one that may be present.

    Threads may be inside at once.
    """
    _NO_GPU.enter()
    try:
        yield
    finally:
        _NO_GPU.leave()


@contextmanager
def cuda_text_as(replaced: Callable[[str], str]) -> Iterator[None]:
    """As :func:`no_gpu`, with ``replaced(text)`` where TVM would put the CUDA text."""
    tvm_ffi.register_global_func(POSTPROCESS, lambda text, target: replaced(text), override=True)
    try:
        with no_gpu():
            yield
    finally:
        tvm_ffi.registry.remove_global_func(POSTPROCESS)
