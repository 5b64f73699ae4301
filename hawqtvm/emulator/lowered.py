"""PrimFuncs for a GPU as TVM lowers them: their CUDA text, and which kernels they launch, on what."""

from dataclasses import dataclass

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, tirx

from hawqtvm.emulator.emulated import Emulated
from hawqtvm.errors import BadInput
from schedules.lowering import no_gpu

# With these the host's function is one of plain calls to kernels no more.
PACKING = ("tirx.MakePackedAPI", "tirx.FP8StorageLegalize", "tirx.BF16StorageLegalize")
DEVICE_KERNEL = 2  # calling_conv
DYNAMIC_SHARED = "tirx.use_dyn_shared_memory"
UNWRITTEN = 0x5A  # in every byte of memory that no kernel has filled


@dataclass(frozen=True)
class Launch:
    """A kernel's launch.  Extents are x, y, z; ``shared``: bytes of dynamic shared memory.

    ``buffers``: for each of the kernel's parameters, in the CUDA text's order, the PrimFunc's parameter by its number,
    or by the numbers after them its workspaces.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    buffers: tuple[int, ...]


@dataclass(frozen=True)
class Lowered:
    """``source``: CUDA text.  ``launches`` in their order.  ``workspaces``: shape and dtype of buffers between them."""

    source: str
    parameters: int
    workspaces: tuple[tuple[tuple[int, ...], str], ...]
    launches: tuple[Launch, ...]

    def run(self, *arrays: np.ndarray, checked: bool = True) -> None:
        """Runs the PrimFunc in the emulator on arrays in its parameters' order, which change in place.

        Raises as :meth:`Emulated.run`.
        """
        if len(arrays) != self.parameters:
            raise BadInput(f"the function takes {self.parameters} arrays, not {len(arrays)}")
        emulated = Emulated(self.source, checked)
        buffers = [*arrays, *(unwritten(shape, dtype) for shape, dtype in self.workspaces)]
        for launch in self.launches:
            names = [parameter.name for parameter in emulated.kernels[launch.kernel].parameters]
            arguments = {name: buffers[number] for name, number in zip(names, launch.buffers, strict=True)}
            emulated.run(launch.kernel, launch.grid, launch.block, arguments, launch.shared)


def unwritten(shape, dtype: str) -> np.ndarray:
    """An array that holds a pattern, so that what no kernel writes shows."""
    array = np.empty([int(extent) for extent in shape], str(dtype))
    array.view(np.uint8).fill(UNWRITTEN)
    return array


def lower(function: tirx.PrimFunc, target: tvm.target.Target) -> Lowered:
    """The scheduled PrimFunc as ``tvm.compile`` would have it for the GPU ``target``, without a host's code.

    No GPU that may be present is asked.  BadInput where the host would do more than launch kernels one after another.
    """
    function = function.with_attr("global_symbol", "main")
    with target, tvm.transform.PassContext(disabled_pass=list(PACKING)), no_gpu():
        mod = tirx.transform.BindTarget(target)(tvm.IRModule({"main": function}))
        pipeline, _, finalize_device = tirx.get_default_tir_pipeline(target)
        mod = pipeline(mod)
        kernels = {var: f for var, f in mod.functions.items() if f.attrs.get("calling_conv") == DEVICE_KERNEL}
        device = finalize_device()(tvm.IRModule(kernels))
        source = tvm_ffi.get_global_func("target.build.cuda")(device, target).inspect_source("cuda")
    workspaces, launches = _host(mod["main"])
    return Lowered(source, len(mod["main"].params), workspaces, launches)


def _host(main: tirx.PrimFunc) -> tuple[tuple, tuple[Launch, ...]]:
    """Workspaces and launches of a host function."""
    numbers = {parameter: number for number, parameter in enumerate(main.params)}
    workspaces, launches = [], []

    def visit(statement):
        if isinstance(statement, tirx.SeqStmt):
            for part in statement.seq:
                visit(part)
        elif isinstance(statement, tirx.AllocBuffer):
            buffer = statement.buffer
            numbers[buffer] = len(main.params) + len(workspaces)
            dtype, _, lanes = str(buffer.dtype).partition("x")  # uint8x4: of vectors
            workspaces.append(((*(int(extent) for extent in buffer.shape), int(lanes or 1)), dtype))
        elif isinstance(statement, tirx.DeclBuffer):  # another view of a buffer
            numbers[statement.buffer] = numbers[statement.data.args[0]]
        elif isinstance(statement, tirx.Evaluate) and _is_launch(statement.value):
            launches.append(_launch(statement.value, numbers))
        else:
            raise BadInput(f"the host does more than launch kernels ({type(statement).__name__}): bind every loop")

    visit(main.body)
    return tuple(workspaces), tuple(launches)


def _is_launch(call) -> bool:
    return isinstance(call, ir.Call) and getattr(call.op, "name", "") == "tirx.call_ffi_kernel"


def _launch(call: ir.Call, numbers: dict) -> Launch:
    tags = list(call.attrs.launch_params)
    name, *values = call.args
    split = len(values) - len(tags)
    extents = {str(tag): int(value) for tag, value in zip(tags, values[split:], strict=True)}

    def three(axis: str) -> tuple[int, int, int]:
        return tuple(extents.get(f"{axis}Idx.{letter}", 1) for letter in "xyz")

    buffers = tuple(numbers[value.args[0]] for value in values[:split])
    return Launch(str(name.value), three("block"), three("thread"), extents.get(DYNAMIC_SHARED, 0), buffers)
