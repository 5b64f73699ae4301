"""Integer vectors of the CPU kernels: 512-bit loads, stores, dot products and 4-bit packing in TVM's tirx.

Everything here is an expression or a statement of the :class:`IRBuilder` frame that is open.  Loops in Python unroll.
"""

from tvm import tirx
from tvm.tirx.script.builder import ir as T

LANES = 16  # int32 lanes of a 512-bit vector, and the channels of an NCHW16c block
NIBBLES = 0x0F0F0F0F


def splat(value: int, dtype: str, lanes: int = LANES):
    """``lanes`` copies of a constant."""
    return tirx.Broadcast(tirx.const(value, dtype), lanes) if lanes > 1 else tirx.const(value, dtype)


def view(dtype: str, value):
    """The same bits as another vector type."""
    return tirx.reinterpret(dtype, value)


def pick(vectors: list, lanes: list[int]):
    """The numbered lanes of the vectors laid end to end."""
    copies = -(-len(lanes) // sum(vector_lanes(vector) for vector in vectors))  # tirx wants no fewer lanes than indices
    return tirx.Shuffle(vectors * copies, lanes)


def load(buffer, index, dtype: str):
    """One vector from a flat buffer, ``index`` in elements of the buffer."""
    return buffer.vload([index], dtype)


def store(buffer, index, value):
    """``buffer[index : index + lanes] = value``, ``index`` in elements of the flat buffer."""
    lanes = vector_lanes(value)
    at = tirx.const(index, "int32") if isinstance(index, int) else index
    T.buffer_store(buffer, value, [tirx.Ramp(at, 1, lanes) if lanes > 1 else at])


def vector_lanes(value) -> int:
    name = str(value.ty.dtype)
    return int(name.rpartition("x")[2]) if "x" in name else 1


def flat(buffer):
    """A one-dimensional view of an argument."""
    size = 1
    for extent in buffer.shape:
        size *= int(extent)
    return T.decl_buffer((size,), buffer.dtype, data=buffer.data, align=64, layout=None)


def scratch(size: int, dtype: str):
    """Memory of the running thread; below 1 KB it is on the stack, where LLVM turns it into registers."""
    return T.alloc_buffer((size,), dtype, align=64, layout=None)


def argument(name: str, shape: tuple[int, ...], dtype: str):
    """A kernel argument and nothing known of its strides but that it is dense and 64-byte aligned."""
    return T.arg(name, T.buffer(shape, dtype, align=64, layout=None))


def chunks(size: int, most: int, emit):
    """``emit(offset, lanes)`` over ``size`` elements, ``most`` at a time and the rest in powers of two."""
    if size >= most:
        with T.serial(size // most) as chunk:
            emit(chunk * most, most)
    done = size // most * most
    while done < size:
        lanes = 1 << ((size - done).bit_length() - 1)
        emit(done, lanes)
        done += lanes


def task_loop(count: int):
    """A loop over ``count`` independent tasks, on all threads if there are several."""
    return T.parallel(count) if count > 1 else T.serial(count)


def prefetch(buffer, index):
    """Ask for the cache line of an element of a flat buffer."""
    read, near, data = (tirx.const(flag, "int32") for flag in (0, 3, 1))
    T.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", tirx.address_of(buffer[index]), read, near, data))


def broadcast_word(buffer, index):
    """The four bytes at ``index`` of a uint8 buffer in every 32-bit lane, as uint8x64."""
    word = view("int32", buffer.vload([index], "uint8x4"))
    return view("uint8x64", tirx.Broadcast(word, LANES))


def halves(name: str, dtype: str, *vectors):
    """A 256-bit LLVM intrinsic on the lower and on the upper halves of 512-bit vectors; each result is ``dtype``."""
    results = []
    for half in (0, 1):
        sizes = [vector_lanes(vector) // 2 for vector in vectors]
        cut = [pick([v], list(range(half * n, half * n + n))) for v, n in zip(vectors, sizes, strict=True)]
        results.append(tirx.call_llvm_pure_intrin(dtype, name, *cut))
    return pick(results, list(range(2 * vector_lanes(results[0]))))


def doubled(a):
    """Signed lanes plus themselves, held to what the lanes can hold."""
    return tirx.call_llvm_pure_intrin(str(a.ty.dtype), "llvm.sadd.sat", a, a)


def high_product(target, a, b):
    """The upper halves of the products of 32 16-bit lanes, signed or not."""
    dtype = str(a.ty.dtype)
    name = "pmulhu.w" if dtype.startswith("u") else "pmulh.w"
    if target.avx512:
        return tirx.call_llvm_pure_intrin(dtype, f"llvm.x86.avx512.{name}.512", a, b)
    return halves(f"llvm.x86.avx2.{name}", dtype.replace("32", "16"), a, b)


def rounded_product(target, a, b):
    """``(a * b + 2**14) >> 15`` of 32 int16 lanes."""
    if target.avx512:
        return tirx.call_llvm_pure_intrin("int16x32", "llvm.x86.avx512.pmul.hr.sw.512", a, b)
    return halves("llvm.x86.avx2.pmul.hr.sw", "int16x16", a, b)


def wrapping_add(a, b):
    """int32 sums modulo 2**32.  Added as signed, LLVM takes it that they never leave int32."""
    unsigned = f"uint32x{vector_lanes(a)}"
    return view(str(a.ty.dtype), view(unsigned, a) + view(unsigned, b))


def words_to_bytes(words):
    """int32 words of eight nibbles -> uint8 lanes, each word as its nibbles 0 2 4 6 then 1 3 5 7 (no byte shuffle)."""
    lanes = 2 * vector_lanes(words)
    twice = pick([words], [lane // 2 for lane in range(lanes)])
    odd = tirx.Ramp(tirx.const(0, "int32"), 1, lanes) & splat(1, "int32", lanes)
    shifted = twice >> (odd << splat(2, "int32", lanes))
    return view(f"uint8x{4 * lanes}", shifted & splat(NIBBLES, "int32", lanes))


WORD_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the nibbles of a word as `words_to_bytes` lays them out


def signed_nibbles(packed):
    """int32x16 -> (low, high) nibbles of its 64 bytes, two int8x64 of -8..7."""
    halves = (packed, packed >> splat(4, "int32"))
    eight = splat(8, "int8", 64)
    return [(view("int8x64", half & splat(NIBBLES, "int32")) ^ eight) - eight for half in halves]


def bytes_to_words(codes):
    """uint8 lanes of 0..15, a multiple of 8 -> int32 lanes, eight codes a word, element 0 in the low bits."""
    lanes = vector_lanes(codes)
    pairs = view(f"uint16x{lanes // 2}", codes)
    nibbles = (pairs | (pairs >> splat(4, "uint16", lanes // 2))).astype(f"uint8x{lanes // 2}")
    return view(f"int32x{lanes // 8}", nibbles)


def codes_of_words(words):
    """int32 lanes -> uint8 lanes, eight times as many, in the order of their channels."""
    lanes = vector_lanes(words)
    packed = view(f"uint8x{4 * lanes}", words)
    low, high = packed & splat(15, "uint8", 4 * lanes), packed >> splat(4, "uint8", 4 * lanes)
    return pick([low, high], [lane // 2 + (lane % 2) * 4 * lanes for lane in range(8 * lanes)])
