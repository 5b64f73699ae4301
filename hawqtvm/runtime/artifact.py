"""An artifact's directory: the manifest read and checked, the library proved to be the one it describes."""

from dataclasses import dataclass
from pathlib import Path

from hawqtvm.errors import BadInput
from hawqtvm.files import read_json, sha256_file
from hawqtvm.runtime import cpu, gpu

MANIFEST, KIND, VERSION = "manifest.json", "hawqtvm-artifact", 1

FIELDS = {
    "model": str,
    "library": str,
    "library_sha256": str,
    "target.arch": (str, type(None)),
    "target.features": list,
    "threads": int,
    "input.shape": list,
    "output.shape": list,
    "output.scale": (int, float),
    "layers": list,
}


@dataclass(frozen=True)
class Artifact:
    """A manifest's parts that running needs.

    ``library``: path of the shared library, ``sha256`` its digest.  ``arch``: of the GPU that it is for, if any.
    ``input_shape``: (N, C, H, W).  ``output_shape``: (N, ...).  ``layer_of``: kernel's name -> layer's name, in the
    order they run.  ``second_of``: kernel's name -> its second output's name, of those that have one.  ``manifest``:
    all of the file.
    """

    path: Path
    library: Path
    sha256: str
    arch: str | None
    features: tuple[str, ...]
    threads: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    logits_scale: float
    layer_of: dict[str, str]
    second_of: dict[str, str]
    manifest: dict


def read_artifact(path: Path) -> Artifact:
    """Read ``path``/manifest.json; BadInput when the directory or the manifest is missing, damaged or too new."""
    if not path.is_dir():
        raise BadInput(f"no such artifact directory: {path}; python -m hawqtvm.deploy writes one")
    file = path / MANIFEST
    manifest = read_json(file, KIND, VERSION)
    field = {name: _field(manifest, name, kind, file) for name, kind in FIELDS.items()}
    shapes = [tuple(field[name]) for name in ("input.shape", "output.shape")]
    sizes = [*shapes[0], *shapes[1], field["threads"]]
    if not all(type(n) is int and n > 0 for n in sizes) or len(shapes[0]) != 4 or shapes[0][0] != shapes[1][0]:
        raise _damaged(file, "its shapes or threads make no sense")
    if Path(field["library"]).name != field["library"]:
        raise _damaged(file, "'library' is not a plain file name")
    try:
        layer_of = {layer["kernel"]: layer["name"] for layer in field["layers"]}
        second = {layer["kernel"]: layer.get("second_output") for layer in field["layers"]}
        second_of = {kernel: output["tensor"] for kernel, output in second.items() if output}
        names = {*layer_of.values(), *second_of.values()}
    except (AttributeError, TypeError, KeyError):
        raise _damaged(file, "a layer lacks its name, kernel or second output's tensor") from None
    if not (len(layer_of) == len(field["layers"]) and len(layer_of) + len(second_of) == len(names)):
        raise _damaged(file, "two layers share a name or a kernel")
    return Artifact(
        path=path,
        library=path / field["library"],
        sha256=field["library_sha256"],
        arch=field["target.arch"],
        features=tuple(field["target.features"]),
        threads=field["threads"],
        input_shape=shapes[0],
        output_shape=shapes[1],
        logits_scale=float(field["output.scale"]),
        layer_of=layer_of,
        second_of=second_of,
        manifest=manifest,
    )


def check_runs_here(artifact: Artifact) -> gpu.Gpu | None:
    """The GPU that runs the library if it is for one.

    BadInput unless this machine can run it and it is the one that was deployed, whole.
    """
    cpu.require(list(artifact.features), str(artifact.path))
    if not artifact.library.is_file():
        raise BadInput(f"{artifact.path} lacks its library {artifact.library.name}: copy all of it, or deploy again")
    if sha256_file(artifact.library) != artifact.sha256:
        raise BadInput(f"{artifact.library} is damaged (not the sha256 of its manifest): copy or deploy it again")
    return artifact.arch and gpu.require(artifact.arch, str(artifact.path))


def _field(manifest: dict, name: str, kind: type | tuple, file: Path):
    value = manifest
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, kind):
        raise _damaged(file, f"'{name}' is {'missing' if value is None else 'of the wrong type'}")
    return value


def _damaged(file: Path, reason: str) -> BadInput:
    return BadInput(f"{file} is damaged ({reason}): deploy again")
