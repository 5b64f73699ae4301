"""The processors a library can be built for, as levels: what LLVM may emit and what the runtime must check."""

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
    """``mcpu`` and ``mattr`` as LLVM has them; ``features`` as Linux names the flags they need."""

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


# best first
TARGETS = (
    CpuTarget("avx512-vnni", "x86-64-v4", ("+avx512vnni",), VNNI),
    CpuTarget("avx-vnni", "x86-64-v3", ("+avxvnni",), AVX_VNNI),
    CpuTarget("avx2", "x86-64-v3", (), V3),
    CpuTarget("x86-64", "x86-64", (), BASELINE),
)


def find_target(name: str = "native", features: frozenset[str] | None = None) -> CpuTarget:
    """ "native" is the best level a machine with these features has, by default this one; otherwise a level by name.

    BadInput names the known ones.
    """
    if name == "native":
        present = cpu_features() if features is None else features
        return next((t for t in TARGETS if present.issuperset(t.features)), TARGETS[-1])
    for target in TARGETS:
        if target.name == name:
            return target
    raise BadInput(f"unknown target {json.dumps(name)}; choose native, {', '.join(t.name for t in TARGETS)}")
