"""CUDA text -> a cubin for one architecture, with the nvcc of a toolkit or of PyPI's packages; no GPU needed."""

import base64
import functools
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from hawqtvm.errors import BadInput

REMEDY = "pip install 'hawqtvm[cuda]', or put a CUDA toolkit's nvcc on PATH or its folder in CUDA_HOME"


@functools.cache
def find_nvcc() -> Path:
    """nvcc in CUDA_HOME, on PATH, or from PyPI's nvidia-cuda-nvcc; BadInput where there is none."""
    if (found := find_tool("nvcc")) is None:
        raise BadInput(f"no nvcc found, which compiles for NVIDIA GPUs: {REMEDY}")
    return found


def find_tool(name: str) -> Path | None:
    """A program of CUDA's toolkit in CUDA_HOME, on PATH, or from PyPI's packages."""
    home = os.environ.get("CUDA_HOME")
    if home and (found := shutil.which(name, path=str(Path(home, "bin")))) or (found := shutil.which(name)):
        return Path(found)
    packages = importlib.util.find_spec("nvidia")
    for folder in (packages.submodule_search_locations or ()) if packages else ():
        for path in sorted(Path(folder).glob(f"cu*/bin/{name}"), reverse=True):
            return path
    return None


def cubin(text: str, arch: str) -> bytes:
    """The compiled kernels of ``text`` for ``arch`` ("sm_75"); BadInput when nvcc refuses, with its first complaint."""
    return cubin_and_messages(text, arch)[0]


def cubin_and_messages(text: str, arch: str, *options: str) -> tuple[bytes, str]:
    """As :func:`cubin`, and what nvcc said."""
    nvcc = find_nvcc()
    with tempfile.TemporaryDirectory(prefix="hawqtvm-") as directory:
        source, out = Path(directory, "kernels.cu"), Path(directory, "kernels.cubin")
        source.write_text(text)
        command = [str(nvcc), "-cubin", f"-arch={arch}", "-O3", *options, "-o", str(out), str(source)]
        # nvcc of PyPI's packages finds its parts there
        path = os.pathsep.join([str(nvcc.parent), os.environ.get("PATH", os.defpath)])
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": path})
        if done.returncode:
            lines = (done.stderr + done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            reason = next((line for line in lines if "error" in line or "fatal" in line), lines[0])
            raise BadInput(f"{nvcc} cannot compile for {arch} ({reason.strip()}): {REMEDY}, of CUDA 13")
        return out.read_bytes(), done.stderr + done.stdout


def library_text(text: str, arch: str) -> str:
    """What a library holds instead of CUDA text: its cubin, which hawqtvm.runtime.engine decodes."""
    return base64.b64encode(cubin(text, arch)).decode()
