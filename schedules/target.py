"""What a library can be built for: levels of x86 processors, and architectures of NVIDIA GPUs."""

import json
from dataclasses import dataclass
from functools import cached_property

from hawqtvm.errors import BadInput
from hawqtvm.runtime.cpu import cpu_features

BASELINE = ("sse2",)
V2 = ("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3")
V3 = (*V2, "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave")
V4 = (*V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
VNNI = (*V4, "avx512_vnni")
AVX_VNNI = (*V3, "avx_vnni")


@dataclass(frozen=True)
class CpuTarget:
    """What LLVM may emit and what the runtime must check.

    ``mcpu`` and ``mattr`` as LLVM has them; ``features`` as Linux names the flags they need."""

    name: str
    mcpu: str
    mattr: tuple[str, ...]
    features: tuple[str, ...]

    @property
    def vnni(self) -> bool:
        return "avx512_vnni" in self.features

    @property
    def avx2(self) -> bool:
        return "avx2" in self.features

    @property
    def avx_vnni(self) -> bool:
        return "avx_vnni" in self.features

    @property
    def avx512(self) -> bool:
        return "avx512bw" in self.features

    @cached_property
    def tvm(self):
        """The ``tvm.target.Target``."""
        import tvm

        return tvm.target.Target({"kind": "llvm", "mcpu": self.mcpu, "mattr": list(self.mattr)})


@dataclass(frozen=True)
class CudaTarget:
    """``arch``: as nvcc names it.  ``int4``: its Tensor Cores multiply 4-bit codes; ``async_copies``: it has cp.async.

    Its limits: bytes of shared memory that a block may have and that an SM has, threads and blocks of an SM; all have
    65,536 registers an SM, 255 a thread and 1,024 threads a block.
    """

    name: str
    arch: str
    int4: bool
    async_copies: bool
    shared_block: int
    shared_sm: int
    threads_sm: int
    blocks_sm: int

    @cached_property
    def tvm(self):
        """The ``tvm.target.Target``; its host code runs on any x86-64."""
        import tvm

        host = {"kind": "llvm", "mcpu": "x86-64"}
        limits = {"max_shared_memory_per_block": self.shared_block, "max_threads_per_block": 1024}
        return tvm.target.Target({"kind": "cuda", "arch": self.arch, "thread_warp_size": 32, **limits}, host=host)


# best first
CPU_TARGETS = (
    CpuTarget("avx512-vnni", "x86-64-v4", ("+avx512vnni",), VNNI),
    CpuTarget("avx-vnni", "x86-64-v3", ("+avxvnni",), AVX_VNNI),
    CpuTarget("avx2", "x86-64-v3", (), V3),
    CpuTarget("x86-64", "x86-64", (), BASELINE),
)


KIB = 1024
CUDA_TARGETS = (
    CudaTarget("nvidia/nvidia-t4", "sm_75", True, False, 64 * KIB, 64 * KIB, 1024, 16),
    CudaTarget("nvidia/nvidia-a100", "sm_80", True, True, 163 * KIB, 164 * KIB, 2048, 32),
    CudaTarget("nvidia/nvidia-a10", "sm_86", True, True, 99 * KIB, 100 * KIB, 1536, 16),
    CudaTarget("nvidia/nvidia-l4", "sm_89", True, True, 99 * KIB, 100 * KIB, 1536, 24),
    CudaTarget("nvidia/nvidia-h100", "sm_90", False, True, 227 * KIB, 228 * KIB, 2048, 32),
)
Target = CpuTarget | CudaTarget


def find_target(name: str = "native", features: frozenset[str] | None = None) -> Target:
    """ "native" is the best level a machine with these features has, by default this one; otherwise a target by name.

    A GPU goes by its architecture's name, too: "sm_75".  BadInput names the known ones.
    """
    if name == "native":
        present = cpu_features() if features is None else features
        return next((t for t in CPU_TARGETS if present.issuperset(t.features)), CPU_TARGETS[-1])
    known = {t.name: t for t in CPU_TARGETS + CUDA_TARGETS} | {t.arch: t for t in CUDA_TARGETS}
    if name not in known:
        raise BadInput(f"unknown target {json.dumps(name)}; choose native, {', '.join(known)}")
    return known[name]
