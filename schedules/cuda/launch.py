"""How TVM launches the one device kernel of a PrimFunc: what its host code does, for those who launch it themselves."""

from dataclasses import dataclass

import tvm_ffi
from tvm import tirx

from hawqtvm.errors import CheckFailed


@dataclass(frozen=True)
class Launch:
    """``kernel``: its name in the CUDA text.  ``grid``, ``block``: extents in x, y, z.  ``arguments``: the names of its
    tensors in the PrimFunc's order; in the text they are sorted."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[str, ...]


def launch(name: str, function: tirx.PrimFunc) -> Launch:
    """Of the PrimFunc whose global name is ``name``; CheckFailed where it launches more than one kernel or none."""
    extents: dict[str, list[int]] = {}

    def found(thread, extent) -> None:
        extents.setdefault(str(thread), []).append(int(extent))

    def attribute(node: tirx.AttrStmt) -> None:
        if node.attr_key == "thread_extent":
            found(node.node.thread_tag, node.value)

    def loop(node: tirx.For) -> None:
        if node.thread_binding is not None:
            found(node.thread_binding.thread_tag, node.extent)

    tvm_ffi.structural_walk(function.body, [(tirx.AttrStmt, attribute), (tirx.For, loop)])
    if not extents or any(len(found) > 1 for found in extents.values()):
        raise CheckFailed(f"kernel {name} launches {'more than one kernel' if extents else 'none'} on the GPU")
    grid, block = (tuple(extents.get(f"{kind}.{axis}", [1])[0] for axis in "xyz") for kind in ("blockIdx", "threadIdx"))
    arguments = tuple(str(parameter.name) for parameter in function.params)
    return Launch(f"{name}_kernel", grid, block, arguments)
