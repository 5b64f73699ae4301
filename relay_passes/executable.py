"""A module of any stage -> a Relax VM executable."""

import tvm
from tvm import relax

from schedules.lowering import compiled

# TVM's own default without RewriteDataflowReshape, which fails on kernels that have no blocks, and without what only
# GPUs and sampling need
LOWERING = (
    relax.transform.LegalizeOps,
    relax.transform.ToNonDataflow,
    relax.transform.RemovePurityChecking,
    relax.transform.CallTIRRewrite,
    relax.transform.StaticPlanBlockMemory,
    relax.transform.LowerAllocTensor,
    relax.transform.KillAfterLastUse,
    relax.transform.LowerRuntimeBuiltin,
    relax.transform.ComputePrimValue,
    relax.transform.VMShapeLower,
    relax.transform.AttachGlobalSymbol,
)


def build(mod: tvm.IRModule, target: tvm.target.Target) -> tvm.runtime.Executable:
    """Compiles main and every kernel; ``export_library`` writes it out, ``relax.VirtualMachine`` runs it."""
    pipeline = tvm.transform.Sequential([make() for make in LOWERING])
    return compiled(mod, target, relax_pipeline=pipeline)
