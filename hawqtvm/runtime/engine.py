"""TVM's runtime without TVM: its library found, loaded, and a compiled program opened and called."""

import ctypes
import functools
import importlib.util
import shutil
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

from hawqtvm.errors import BadInput

CPU, FIRST_DEVICE, POOLED_ALLOCATOR = 1, 0, 2

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
    if tvm_ffi.get_global_func("runtime.config_threadpool", allow_missing=True) is None:
        library = _runtime_library()
        try:
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise BadInput(f"cannot load {library} ({error}): install apache-tvm again") from error
    return tvm_ffi


def _runtime_library() -> Path:
    tvm = importlib.util.find_spec("tvm")  # found, not imported: that takes a second and brings the compiler
    if tvm is None:
        raise BadInput("apache-tvm is not installed: install hawqtvm's dependencies")
    return Path(tvm.submodule_search_locations[0]) / "lib" / "libtvm_runtime.so"


class Program:
    """A Relax VM library's functions on the CPU.  Not for two threads at once."""

    def __init__(self, library: Path, sha256: str):
        """Open ``library``, whose content has the digest ``sha256``; BadInput when TVM cannot.

        Its weights are expanded, with as many threads as are configured.
        """
        tvm_ffi = ffi()
        self._from_dlpack, self._convert = tvm_ffi.from_dlpack, tvm_ffi.convert
        try:
            with _path_to_open(library.resolve(), sha256) as path:
                self._vm = tvm_ffi.load_module(str(path))["vm_load_executable"]()
            self._vm["vm_initialization"](CPU, FIRST_DEVICE, POOLED_ALLOCATOR)
            self._main, self.quantize_input = self._vm["main"], self._vm["quantize_input"]
            self._weights = self._vm["expand_weights"]()
        except (RuntimeError, AttributeError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise BadInput(f"TVM cannot open {library} ({reason}): deploy again with the installed TVM") from error

    def main(self, codes):
        """Logits of input codes, both TVM tensors."""
        return self._main(codes, self._weights)

    def tensor(self, array):
        """A TVM tensor on the array's own memory (64-byte aligned: the kernels take that for granted)."""
        return self._from_dlpack(array)

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
