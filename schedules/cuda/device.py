"""Device functions: what a kernel does with a warp's or an SM's own instructions, as CUDA text.

``HAWQTVM_EMULATOR`` is defined where the text is compiled to run on a CPU; there the emulator's functions stand for the
instructions.  Calls are expressions or statements of the :class:`IRBuilder` frame that is open.
"""

from tvm import tirx
from tvm.tirx.script.builder import ir as T

MMA = {4: ("m8n8k32", "u4.s4"), 8: ("m8n8k16", "u8.s8")}


def _function(signature: str, emulated: str, device: str) -> str:
    return f"""
__forceinline__ __device__ {signature} {{
#ifdef HAWQTVM_EMULATOR
  {emulated}
#else
  {device}
#endif
}}
"""


def _mma(bits: int) -> str:
    shape, types = MMA[bits]
    return _function(
        f"void mma_u{bits}s{bits}(int* c, int a, int b)",
        f"emulator::mma<{bits}, {bits}>(c, a, b);",
        f"""asm("mma.sync.aligned.{shape}.row.col.s32.{types}.s32 {{%0,%1}}, {{%2}}, {{%3}}, {{%0,%1}};"
    : "+r"(c[0]), "+r"(c[1]) : "r"(a), "r"(b));""",
    )


UNPACKED_SHIFT = 4  # accumulators of unpacked codes are 2**4 times the sum
UNPACKED = f"""{_mma(8)}
__forceinline__ __device__ void mma_unpacked(int* c, int a, int b) {{
  mma_u8s8(c, a & 0x0f0f0f0f, (int)((unsigned)b << 4) & 0xf0f0f0f0);
  mma_u8s8(c, (int)((unsigned)a >> 4) & 0x0f0f0f0f, b & 0xf0f0f0f0);
}}
"""


def mma(bits: int, int4: bool, c, a, b):
    """``c += a b`` of one fragment: c 8x8 int32, two a lane, at address ``c``; ``a`` unsigned and ``b`` signed words.

    ``c[r, n] += sum_k a[r, k] * b[n, k]`` over the codes k of four words; lane ``4*r + k`` has word k of row r of a,
    ``4*n + k`` of row n of b, and ``4*r + j`` has ``c[r, 2*j : 2*j+2]``.  Without ``int4`` Tensor Cores 4-bit words are
    multiplied as bytes, the even codes and then the odd ones, weights in the upper half of a byte, which saves
    their sign extension: c is then ``2**UNPACKED_SHIFT`` times the sum.
    """
    name, source = f"mma_u{bits}s{bits}", _mma(bits)
    if bits == 4 and not int4:
        name, source = "mma_unpacked", UNPACKED
    T.evaluate(T.cuda.func_call(name, c, a, b, source_code=source))


def ldmatrix(count: int, d, row):
    """8x4 words of ``count`` (1, 2 or 4) matrices; lane ``8*m + r`` gives the address of row r of matrix m.

    ``d[m]`` of lane ``4*r + k`` is word k of row r.  Rows are 16 bytes, aligned so, in shared memory.
    """
    targets = ", ".join(f"%{number}" for number in range(count))
    outputs = ", ".join(f'"=r"(d[{number}])' for number in range(count))
    source = _function(
        f"void ldmatrix_x{count}(int* d, const void* row)",
        f"emulator::ldmatrix<{count}>(d, row);",
        f"""unsigned address = (unsigned)__cvta_generic_to_shared(row);
  asm volatile("ldmatrix.sync.aligned.m8n8.x{count}.shared.b16 {{{targets}}}, [%{count}];"
    : {outputs} : "r"(address));""",
    )
    T.evaluate(T.cuda.func_call(f"ldmatrix_x{count}", d, row, source_code=source))


def load_shared(words: int, d, source):
    """1, 2 or 4 words of shared memory to ``d``; TVM sees no read in it."""
    kind = f"int{words}" if words > 1 else "int"
    text = f"""
__forceinline__ __device__ void load_shared_x{words}(int* d, const void* source) {{
  *({kind}*)d = *(const {kind}*)source;
}}
"""
    T.evaluate(T.cuda.func_call(f"load_shared_x{words}", d, source, source_code=text))


def copy_async(target, at, source, start, words: int):
    """4 words from global to shared memory, there when :func:`wait_copies` has returned and a barrier has passed."""
    if words != 4:
        raise ValueError(f"asynchronous copies are of 4 words, not {words}")
    text = _function(
        "void copy_async(void* shared, const void* source)",
        "emulator::cp_async16(shared, source, true);",
        """unsigned address = (unsigned)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(address), "l"(source) : "memory");""",
    )
    addresses = tirx.address_of(target[at]), tirx.address_of(source[start])
    T.evaluate(T.cuda.func_call("copy_async", *addresses, source_code=text))


def wait_copies():
    """Waits for all copies that this thread has begun."""
    text = _function(
        "void wait_copies()",
        "emulator::cp_async_commit();\n  emulator::cp_async_wait<0>();",
        'asm volatile("cp.async.wait_all;" ::: "memory");',
    )
    T.evaluate(T.cuda.func_call("wait_copies", source_code=text))


def from_lane(value, other: int):
    """The int32 ``value`` of the lane whose number differs by xor ``other``; all lanes of the warp must take part."""
    source = """
__forceinline__ __device__ int from_lane(int value, int other) {
  return __shfl_xor_sync(0xffffffffu, value, other);
}
"""
    return T.cuda.func_call("from_lane", value, tirx.const(other, "int32"), source_code=source, return_type="int32")


def barrier():
    """All threads of the block get here, and see what the others have written before."""
    T.evaluate(T.tvm_storage_sync("shared"))
