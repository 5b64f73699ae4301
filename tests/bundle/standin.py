"""Bundles whose "cubins" a stand-in for NVIDIA's driver runs, through the emulator."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from hawqtvm.emulator.compiled import library
from hawqtvm.emulator.text import kernels

RIGHT, WRONG, SILENT = "right", "wrong", "does-nothing"
FAULTS, FAULTS_LATE, HANGS = "faults", "faults-late", "hangs"


def build(folder: Path) -> Path:
    """The folder, with the stand-in in it as the driver's library."""
    source = Path(__file__).with_name("libcuda.cpp")
    out = folder / "libcuda.so.1"
    subprocess.run(["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-o", out, source, "-ldl"], check=True)
    return folder


def cubin(text: str, arch: str, mode: str = RIGHT, us: float = 10.0) -> bytes:
    """In the place of :func:`schedules.cuda.nvcc.cubin`: what the stand-in takes for a cubin of the only kernel."""
    ((name, kernel),) = kernels(text).items()
    shared = " ".join(f"{array.bytes}:{array.granule}" for array in kernel.shared)
    parameters = " ".join(f"{p.dtype.base.itemsize}:{int(p.constant)}" for p in kernel.parameters)
    image = library(kernel.compiled, False).image
    return f"EMULATED {name} {mode} {us} {shared} | {parameters} | {len(image)}\n".encode() + image


def replaced(path: Path, out: Path, files: dict[str, bytes]) -> Path:
    """A copy of a bundle in which the named files hold something else."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            target.writestr(info, files.get(info.filename) or source.read(info))
    return out


def changed(path: Path, out: Path, changes: dict[str, tuple[str, float]]) -> Path:
    """A copy of a bundle in which the named cubins have another mode and take so many microseconds."""
    files = {}
    with zipfile.ZipFile(path) as source:
        for cubin, (mode, us) in changes.items():
            head, _, image = source.read(f"blobs/{cubin}").partition(b"\n")
            magic, name, _, _, *rest = head.decode().split(" ")
            files[f"blobs/{cubin}"] = " ".join([magic, name, mode, str(us), *rest]).encode() + b"\n" + image
    return replaced(path, out, files)


def run(driver: Path, bundle: Path, *arguments, **environment) -> subprocess.CompletedProcess:
    """``python bundle arguments``, with the driver of a folder and nothing of this process's Python path."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-I", str(bundle), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=inherited | {"LD_LIBRARY_PATH": str(driver)} | environment,
    )
