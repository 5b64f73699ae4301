"""TVM's runtime without TVM: its libraries found, loaded, and a compiled program opened and called."""

import base64
import ctypes
import functools
import importlib.util
import shutil
import sys
import tempfile
import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from hawqtvm.errors import BadInput
from hawqtvm.runtime.gpu import Gpu

CPU, CUDA, POOLED_ALLOCATOR = 1, 2, 2  # DLPack's device types, TVM's allocator
COMPILE = "tvm_callback_cuda_compile"

_opened: dict[Path, str] = {}  # which content the dynamic loader knows under a path


class _NoTorch:
    """An import finder with which ``import torch`` fails, in this thread only: tvm_ffi tries, and does without.

    Importing torch takes a second, and a machine that serves an artifact need not have it.
    """

    def __init__(self):
        self.thread = threading.get_ident()

    def find_spec(self, name, path=None, target=None):
        if name == "torch" and threading.get_ident() == self.thread:
            raise ModuleNotFoundError("hawqtvm.runtime keeps torch out", name=name)


@functools.cache
def ffi():
    """The module tvm_ffi with TVM's runtime library loaded; whatever the process has of them already is used."""
    hide = _NoTorch()
    sys.meta_path.insert(0, hide)  # without effect where torch is imported already
    try:
        import tvm_ffi
    except ImportError as error:
        raise BadInput(f"apache-tvm-ffi does not import ({error}): install hawqtvm's dependencies") from error
    finally:
        sys.meta_path.remove(hide)
    _load("runtime.config_threadpool", "libtvm_runtime.so", "install apache-tvm again")
    return tvm_ffi


@functools.cache
def cuda_runtime() -> None:
    """Loads the part of TVM's runtime that launches kernels on a GPU; it needs CUDA's, a toolkit's or PyPI's."""
    packages = importlib.util.find_spec("nvidia")
    for folder in packages.submodule_search_locations if packages else ():
        for library in Path(folder).glob("cu13/lib/libcudart.so.13"):
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    _load("ffi.Module.load_from_bytes.cuda", "libtvm_runtime_cuda.so", "install NVIDIA's driver and hawqtvm[cuda]")


@contextmanager
def _cubins_for_text():
    """While inside, what a library has instead of CUDA text is decoded, not compiled: see schedules.cuda.nvcc."""
    registry = ffi().registry
    before = registry.get_global_func(COMPILE, allow_missing=True)  # of TVM's compiler
    registry.register_global_func(COMPILE, lambda text: base64.b64decode(text), override=True)
    try:
        yield
    finally:
        registry.remove_global_func(COMPILE)
        if before is not None:
            registry.register_global_func(COMPILE, before)


def _load(function: str, name: str, remedy: str) -> None:
    """Loads a library of TVM, if its ``function`` is not known yet."""
    import tvm_ffi

    if tvm_ffi.get_global_func(function, allow_missing=True) is None:
        library = _runtime_libraries() / name
        try:
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise BadInput(f"cannot load {library} ({error}): {remedy}") from error


def _runtime_libraries() -> Path:
    tvm = importlib.util.find_spec("tvm")  # found, not imported: that takes a second and brings the compiler
    if tvm is None:
        raise BadInput("apache-tvm is not installed: install hawqtvm's dependencies")
    return Path(tvm.submodule_search_locations[0]) / "lib"


class CpuMemory:
    """Tensors in the processor's memory."""

    allocators = (CPU, 0, POOLED_ALLOCATOR)

    def tensor(self, array: np.ndarray):
        """A TVM tensor on the array's own memory (64-byte aligned: the kernels take that for granted)."""
        return ffi().from_dlpack(array)

    def array(self, tensor) -> np.ndarray:
        """The tensor's content, valid as long as the tensor."""
        return np.from_dlpack(tensor)

    def wait(self) -> None:
        """Until all that was started has ended."""


class GpuMemory:
    """Tensors in a GPU's memory; what is computed there is only started by a call."""

    def __init__(self, index: int):
        cuda_runtime()
        self.allocators = (CUDA, index, POOLED_ALLOCATOR, *CpuMemory.allocators)
        self._device = ffi().device(CUDA, index)
        names = ("TVMTensorAllocWithScope", "TVMTensorCopyFromBytes", "TVMTensorCopyToBytes", "Device_StreamSync")
        self._allocate, self._fill, self._read, self._sync = (ffi().get_global_func(f"runtime.{n}") for n in names)

    def tensor(self, array: np.ndarray):
        """A copy of the array on the GPU."""
        tensor = self._allocate(ffi().Shape(array.shape), ffi().dtype(str(array.dtype)), self._device, None)
        self._fill(tensor, ctypes.c_void_p(array.ctypes.data), array.nbytes)
        return tensor

    def array(self, tensor) -> np.ndarray:
        """A copy of the tensor, once it is computed."""
        array = np.empty(tuple(tensor.shape), str(tensor.dtype))
        self._read(tensor, ctypes.c_void_p(array.ctypes.data), array.nbytes)
        return array

    def wait(self) -> None:
        """Until all that was started has ended."""
        self._sync(self._device, 0)


class Program:
    """A Relax VM library's functions on the CPU or a GPU.  Not for two threads at once."""

    def __init__(self, library: Path, sha256: str, gpu: Gpu | None = None):
        """Open ``library``, whose content has the digest ``sha256``, for ``gpu`` or the CPU; BadInput when TVM cannot.

        Its weights are expanded, with as many threads as are configured.
        """
        tvm_ffi = ffi()
        self._convert = tvm_ffi.convert
        self.memory = GpuMemory(gpu.index) if gpu else CpuMemory()
        try:
            with _path_to_open(library.resolve(), sha256) as path, _cubins_for_text() if gpu else nullcontext():
                self._vm = tvm_ffi.load_module(str(path))["vm_load_executable"]()
            self._vm["vm_initialization"](*self.memory.allocators)
            self._main, self.quantize_input = self._vm["main"], self._vm["quantize_input"]
            self._weights = self._vm["expand_weights"]()
        except (RuntimeError, AttributeError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise BadInput(f"TVM cannot open {library} ({reason}): deploy again with the installed TVM") from error

    def main(self, codes):
        """Logits of input codes, both TVM tensors."""
        return self._main(codes, self._weights)

    @contextmanager
    def watched(self, before, after):
        """While inside, every call in the program is told: ``before(name)``, ``after(name, arguments)``.

        A kernel's last arguments are its outputs.
        """
        raised = []

        def instrument(function, name, is_before, result, *arguments):
            try:
                if is_before:
                    before(name)
                else:
                    after(name, arguments)
            except BaseException as error:
                raised.append(error)
                raise

        self._vm["set_instrument"](self._convert(instrument))
        try:
            yield
        except RuntimeError:
            if raised:  # what TVM makes of an interrupt
                raise raised[0] from None
            raise
        finally:
            self._vm["set_instrument"](None)


@contextmanager
def _path_to_open(library: Path, sha256: str):
    """A path under which the dynamic loader gives this content.

    It knows libraries by path, so a file that replaced one already opened would give the old code: that one is opened
    from a copy, which may vanish once it is mapped.
    """
    if _opened.setdefault(library, sha256) == sha256:
        yield library
        return
    with tempfile.TemporaryDirectory(prefix="hawqtvm-") as place:
        yield Path(shutil.copy(library, place))
