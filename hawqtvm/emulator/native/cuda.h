// What TVM's CUDA text finds as <cuda.h> when g++ compiles it for the emulator: CUDA's names, on the CPU.
#pragma once
#include <cstdint>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__
#define __align__(n) alignas(n)

#define EMULATOR_VECTORS(name, type, size)                                                                             \
  struct alignas(2 * size) name##2 { type x, y; };                                                                     \
  struct alignas(size) name##3 { type x, y, z; };                                                                      \
  struct alignas(4 * size < 16 ? 4 * size : 16) name##4 { type x, y, z, w; };                                          \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                                     \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                                          \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATOR_VECTORS(char, signed char, 1)
EMULATOR_VECTORS(uchar, unsigned char, 1)
EMULATOR_VECTORS(short, short, 2)
EMULATOR_VECTORS(ushort, unsigned short, 2)
EMULATOR_VECTORS(int, int, 4)
EMULATOR_VECTORS(uint, unsigned, 4)
EMULATOR_VECTORS(longlong, long long, 8)
EMULATOR_VECTORS(ulonglong, unsigned long long, 8)
#undef EMULATOR_VECTORS

// const, so that reading them is no memory access to be checked: they do not change while a thread runs
extern const uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

struct Pair { int x, y; };
struct Quad { int at[4]; };

void* buffer(unsigned index);  // shared arrays, then parameters
Pair mma_m8n8k16(int a, int b, int c0, int c1);  // u8 x s8
Pair mma_m8n8k32(int a, int b, int c0, int c1);  // u4 x s4
Quad load_matrices(unsigned count, const void* row);
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source);
void barrier();
void warp_barrier(unsigned mask);
unsigned active_lanes();
unsigned lane();
void copy_async(void* shared, const void* global, bool valid);
void copy_commit();
void copy_wait(unsigned pending);

// c += a b^T of a warp's fragments, row.col: a unsigned, b signed
template <int A_BITS, int B_BITS>
__forceinline__ void mma(int* c, int a, int b) {
  static_assert(A_BITS == B_BITS && (A_BITS == 4 || A_BITS == 8), "mma multiplies 4 by 4 or 8 by 8 bits");
  Pair sum = A_BITS == 4 ? mma_m8n8k32(a, b, c[0], c[1]) : mma_m8n8k16(a, b, c[0], c[1]);
  c[0] = sum.x;
  c[1] = sum.y;
}

// ldmatrix.sync.aligned.m8n8.xCOUNT.shared.b16
template <int COUNT>
__forceinline__ void ldmatrix(int* d, const void* row) {
  static_assert(COUNT == 1 || COUNT == 2 || COUNT == 4, "ldmatrix loads 1, 2 or 4 matrices");
  Quad loaded = load_matrices(COUNT, row);
  for (int i = 0; i < COUNT; ++i) d[i] = loaded.at[i];
}

inline void cp_async16(void* shared, const void* global, bool valid) { copy_async(shared, global, valid); }
inline void cp_async_commit() { copy_commit(); }
template <int PENDING>
inline void cp_async_wait() { copy_wait(PENDING); }

template <class T>
__forceinline__ T exchange(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  bits = shuffle(mask, bits, source);
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

// what a local array holds before it is written
template <class T, unsigned long N>
__forceinline__ void poison(T (&array)[N]) {
  if constexpr (std::is_integral_v<T>)
    for (unsigned long i = 0; i < N; ++i) array[i] = T(0xA5A5A5A5A5A5A5A5ull);
}

}  // namespace emulator

inline void __syncthreads() { emulator::barrier(); }
inline void __syncwarp(unsigned mask = ~0u) { emulator::warp_barrier(mask); }
inline unsigned __activemask() { return emulator::active_lanes(); }

template <class T>
__forceinline__ T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  unsigned first = emulator::lane() & ~(width - 1u);
  return emulator::exchange(mask, value, first + (source & (width - 1)));
}
template <class T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T value, int other, int width = 32) {
  unsigned lane = emulator::lane(), source = lane ^ other;
  return emulator::exchange(mask, value, source < (lane & ~(width - 1u)) + width ? source : lane);
}
template <class T>
__forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  unsigned lane = emulator::lane(), source = lane + delta;
  return emulator::exchange(mask, value, source < (lane & ~(width - 1u)) + width ? source : lane);
}
template <class T>
__forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  unsigned lane = emulator::lane();
  return emulator::exchange(mask, value, (lane & (width - 1u)) >= delta ? lane - delta : lane);
}

template <class T>
__forceinline__ T __ldg(const T* address) { return *address; }

template <class A, class B>
__forceinline__ std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B>
__forceinline__ std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  return T(a) < T(b) ? T(b) : T(a);
}

inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline long long __mul64hi(long long a, long long b) { return (long long)(__int128(a) * b >> 64); }
inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __clz(int a) { return a ? __builtin_clz(unsigned(a)) : 32; }

// each selector nibble takes a byte of (y, x), or with its bit 3 that byte's sign
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  uint64_t bytes = uint64_t(y) << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    unsigned pick = selector >> 4 * i & 15, byte = bytes >> 8 * (pick & 7) & 255;
    result |= (pick & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
  }
  return result;
}

// a's and b's bytes are signed as a and b are
template <class A, class B, class C>
__forceinline__ C __dp4a(A a, B b, C c) {
  static_assert(sizeof(A) == 4 && sizeof(B) == 4 && sizeof(C) == 4, "__dp4a takes 32-bit words");
  using ByteA = std::conditional_t<std::is_signed_v<A>, int8_t, uint8_t>;
  using ByteB = std::conditional_t<std::is_signed_v<B>, int8_t, uint8_t>;
  unsigned sum = unsigned(c);
  for (int i = 0; i < 32; i += 8) sum += unsigned(int(ByteA(unsigned(a) >> i)) * int(ByteB(unsigned(b) >> i)));
  return C(sum);
}
