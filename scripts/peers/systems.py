"""What is compared, and where each system's built network lies. Imports nothing but the standard library."""

from dataclasses import dataclass
from pathlib import Path

BASELINE = "hawqtvm-int8"


@dataclass(frozen=True)
class System:
    """One column of the comparison.

    Attributes:
        engine: "hawqtvm", "onnxruntime" or "openvino"; which function of `engines` runs it.
        packages: distributions whose versions the report states.
        setting: how it is set up, for the report.
        bits: the weights' and activations' bits (hawqtvm).
        residual: the residual stream's codes (hawqtvm).
    """

    engine: str
    packages: tuple[str, ...]
    setting: str
    bits: int = 8
    residual: str = ""


_OURS = ("hawqtvm", "apache-tvm")
SYSTEMS: dict[str, System] = {
    "hawqtvm-int8": System("hawqtvm", _OURS, "W8A8, uint8 residual", 8, "uint8"),
    "hawqtvm-int8-int16": System("hawqtvm", _OURS, "W8A8, int16 residual", 8, "int16"),
    "hawqtvm-int4": System("hawqtvm", _OURS, "W4A4, first and last layer W8A8, uint8 residual", 4, "uint8"),
    "onnxruntime": System(
        "onnxruntime", ("onnxruntime",), "static QDQ, s8 weights for each channel, u8 activations, MinMax"
    ),
    "openvino": System("openvino", ("openvino", "nncf"), "nncf.quantize with its default preset, LATENCY hint"),
}


@dataclass(frozen=True)
class Case:
    """One network at one batch size and thread count; every system runs it before the next case starts."""

    model: str
    batch: int
    threads: int

    def __str__(self) -> str:
        return f"{self.model}, batch {self.batch}, {self.threads} thread{'s' * (self.threads > 1)}"


@dataclass(frozen=True)
class Build:
    """Where built networks lie.

    Attributes:
        folder: holds everything; its name changes with what the peers' networks depend on.
        sources: the fingerprint of our own compiler, so that editing it rebuilds our networks and no other.
    """

    folder: Path
    sources: str

    def float32(self, model: str) -> Path:
        """The ONNX network that the peers quantize; its batch size is free."""
        return self.folder / model / "float32.onnx"

    def check(self, model: str) -> Path:
        """The .npz with some `images` and the float32 network's `logits` for them."""
        return self.folder / model / "check.npz"

    def network(self, system: str, case: Case) -> Path:
        """The quantized network: ours is compiled for a case, the peers specialise when they load."""
        engine = SYSTEMS[system].engine
        if engine == "hawqtvm":
            return self.folder / case.model / f"{system}-b{case.batch}-t{case.threads}-{self.sources}"
        return self.folder / case.model / {"onnxruntime": "onnxruntime.onnx", "openvino": "openvino.xml"}[engine]

    def log(self, name: str) -> Path:
        """The stderr of a process."""
        return self.folder / "logs" / f"{name}.log"
