"""How kernels become machine code."""

import tvm

# It shrinks buffers to what is accessed, which these kernels allocate to begin with, and takes most of the time that
# unrolled ones take.
NEEDLESS = ["s_tir.CompactBufferAllocation"]


def compiled(mod, target: tvm.target.Target, **options) -> tvm.runtime.Executable:
    """``tvm.compile`` of a PrimFunc or a module whose kernels allocate no more than they use."""
    with tvm.transform.PassContext(disabled_pass=NEEDLESS):
        return tvm.compile(mod, target=target, **options)
