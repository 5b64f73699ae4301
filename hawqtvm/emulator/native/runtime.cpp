// The emulator's library: warp collectives, the checks that the compiler calls before each access, and the interface to
// Python.
#include "memory.h"

namespace emulator {

struct Pair { int x, y; };
struct Quad { int at[4]; };

void* buffer(unsigned index) { return regions[index].base; }
unsigned lane() { return lane_number; }
unsigned active_lanes() { return warp->all & ~warp->exited; }

void barrier() {
  site = __builtin_return_address(0);
  warp->ready &= ~(1u << lane_number);
  hand_over();
}

void warp_barrier(unsigned mask) {
  site = __builtin_return_address(0);
  check_mask("__syncwarp", mask);
  meet("__syncwarp", [](Warp& w) {
    ++w.turn;
    set_now();
  });
}

// Orders no memory: only a barrier does (CUDA C++ Programming Guide, warp shuffle functions).
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source) {
  site = __builtin_return_address(0);
  check_mask("__shfl_sync", mask);
  Warp& w = *warp;
  if (!(w.all >> source & 1)) fail("shuffles from lane %u, which its warp lacks", source);
  w.value[lane_number] = value;
  w.a[lane_number] = source;
  meet("__shfl_sync", [](Warp& w) {
    for (unsigned i = 0; i < LANES; ++i) w.taken[i] = w.value[w.a[i] % LANES];
  });
  return w.taken[lane_number];
}

// PTX mma.m8n8k(128/BITS).row.col: the lanes' words are rows of A, columns of B and rows of C, one after another.
template <int BITS>
void multiply(Warp& w) {
  constexpr int DEPTH = 128 / BITS;
  const uint8_t* a_bytes = reinterpret_cast<const uint8_t*>(w.a);
  const uint8_t* b_bytes = reinterpret_cast<const uint8_t*>(w.b);
  int16_t a[8 * DEPTH], b[8 * DEPTH];
  for (int i = 0; i < 128; ++i) {
    if (BITS == 8) {
      a[i] = a_bytes[i];
      b[i] = int8_t(b_bytes[i]);
    } else {
      a[2 * i] = a_bytes[i] & 15;
      a[2 * i + 1] = a_bytes[i] >> 4;
      b[2 * i] = int8_t(b_bytes[i] << 4) >> 4;
      b[2 * i + 1] = int8_t(b_bytes[i]) >> 4;
    }
  }
  int by_depth[DEPTH][8];
  for (int k = 0; k < DEPTH; ++k)
    for (int column = 0; column < 8; ++column) by_depth[k][column] = b[column * DEPTH + k];
  for (int row = 0; row < 8; ++row) {
    unsigned sums[8];
    for (int column = 0; column < 8; ++column) sums[column] = w.c[row * 8 + column];
    for (int k = 0; k < DEPTH; ++k)
      for (int column = 0; column < 8; ++column) sums[column] += unsigned(a[row * DEPTH + k] * by_depth[k][column]);
    for (int column = 0; column < 8; ++column) w.c[row * 8 + column] = sums[column];
  }
}

template <int BITS>
Pair mma(const char* what, int a, int b, int c0, int c1) {
  check_full(what);
  Warp& w = *warp;
  w.a[lane_number] = a;
  w.b[lane_number] = b;
  w.c[2 * lane_number] = c0;
  w.c[2 * lane_number + 1] = c1;
  meet(what, multiply<BITS>);
  return {w.c[2 * lane_number], w.c[2 * lane_number + 1]};
}

Pair mma_m8n8k16(int a, int b, int c0, int c1) {
  site = __builtin_return_address(0);
  return mma<8>("mma.m8n8k16", a, b, c0, c1);
}

Pair mma_m8n8k32(int a, int b, int c0, int c1) {
  site = __builtin_return_address(0);
  return mma<4>("mma.m8n8k32", a, b, c0, c1);
}

// Lane 8m+r names row r of matrix m, 16 bytes; lane l is given word l%4 of row l/4 of each.
Quad load_matrices(unsigned count, const void* row) {
  site = __builtin_return_address(0);
  check_full("ldmatrix");
  Warp& w = *warp;
  if (lane_number < 8 * count) {
    if (checked) {
      if (!is_shared(row)) fail_access("loads", row, 16, ": ldmatrix reads shared memory only");
      check_aligned_access<false>(row, 16, 16);
    }
    w.row[lane_number] = static_cast<const char*>(row);
  }
  static const char* const NAMES[] = {"", "ldmatrix.x1", "ldmatrix.x2", "", "ldmatrix.x4"};
  meet(NAMES[count], [count](Warp& w) {
    for (unsigned lane = 0; lane < LANES; ++lane)
      for (unsigned m = 0; m < count; ++m)
        __builtin_memcpy(&w.loaded[lane][m], w.row[8 * m + lane / 4] + lane % 4 * 4, 4);
  });
  Quad result;
  __builtin_memcpy(&result, w.loaded[lane_number], sizeof result);
  return result;
}

void copy_async(void* shared, const void* global, bool valid) {
  site = __builtin_return_address(0);
  issue_copy(static_cast<char*>(shared), static_cast<const char*>(global), valid);
}
void copy_commit() { ++copies[thread_number()].group; }
void copy_wait(unsigned pending) { land_copies(pending); }

}  // namespace emulator

// ThreadSanitizer's instrumentation calls these before each access of memory that another thread could know.
#define CHECKS(size)                                                                                                   \
  void __tsan_read##size(void* address) {                                                                             \
    emulator::site = __builtin_return_address(0);                                                                      \
    emulator::check_aligned_access<false>(address, size, size);                                                        \
  }                                                                                                                    \
  void __tsan_write##size(void* address) {                                                                            \
    emulator::site = __builtin_return_address(0);                                                                      \
    emulator::check_aligned_access<true>(address, size, size);                                                         \
  }                                                                                                                    \
  void __tsan_unaligned_read##size(void* address) {                                                                   \
    emulator::site = __builtin_return_address(0);                                                                      \
    emulator::check_access<false>(address, size);                                                                      \
  }                                                                                                                    \
  void __tsan_unaligned_write##size(void* address) {                                                                  \
    emulator::site = __builtin_return_address(0);                                                                      \
    emulator::check_access<true>(address, size);                                                                       \
  }

extern "C" {
CHECKS(1)
CHECKS(2)
CHECKS(4)
CHECKS(8)
CHECKS(16)

void __tsan_read_range(void* address, uint64_t size) {
  emulator::site = __builtin_return_address(0);
  emulator::check_access<false>(address, size);
}
void __tsan_write_range(void* address, uint64_t size) {
  emulator::site = __builtin_return_address(0);
  emulator::check_access<true>(address, size);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

// UndefinedBehaviorSanitizer's, where an array is indexed outside of its bounds
struct SourceLocation { const char* file; unsigned line, column; };
struct TypeDescriptor { uint16_t kind, info; char name[1]; };
struct OutOfBoundsData { SourceLocation location; TypeDescriptor *array, *index; };
void __ubsan_handle_out_of_bounds_abort(OutOfBoundsData* data, uintptr_t index) {
  emulator::site = __builtin_return_address(0);
  emulator::fail("takes element %lld of an array %s: out of bounds", (long long)index, data->array->name);
}

struct Launch {
  void (*kernel)();
  emulator::Region* regions;
  unsigned count, grid[3], block[3];
  bool checked;
};
#define EXPORTED __attribute__((visibility("default")))

// False where the address space is too small; else the regions have their memory.
EXPORTED bool emulator_begin(Launch* launch) {
  using namespace emulator;
  void* reserved = mmap(nullptr, launch->count * SLOT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return false;
  arena = static_cast<char*>(reserved);
  checked = launch->checked;
  failed = false;
  regions.clear();
  shadows.assign(launch->count, {});
  for (unsigned i = 0; i < launch->count; ++i) {
    Region& region = launch->regions[i];
    region.base = arena + i * SLOT + SLOT / 2;
    if (region.size && mprotect(region.base, region.size, PROT_READ | PROT_WRITE)) return false;
    regions.push_back(region);
    if (!checked) continue;
    Shadow& shadow = shadows[i];
    shadow.shift = __builtin_ctz(region.granule);
    uint64_t granules = (region.size >> shadow.shift) + 1;
    if (region.shared) {
      shadow.cells.assign(granules, {});
    } else {
      shadow.writers.assign(granules, 0);
      shadow.readers.assign(granules, 0);
    }
  }
  kernel = launch->kernel;
  gridDim = {launch->grid[0], launch->grid[1], launch->grid[2]};
  make_block({launch->block[0], launch->block[1], launch->block[2]});
  copies.assign(fibers.size(), {});
  return true;
}

// The block with this number, x fastest; false where a check failed.
EXPORTED bool emulator_block(unsigned number) {
  using namespace emulator;
  blockIdx = {number % gridDim.x, number / gridDim.x % gridDim.y, number / gridDim.x / gridDim.y};
  block_number = number + 1;
  run_block();
  drop_copies();
  return !failed;
}

EXPORTED const char* emulator_message() { return emulator::message.c_str(); }

// Where the failing instruction lies in this library.
EXPORTED uint64_t emulator_site() {
  return uint64_t(static_cast<const char*>(emulator::site) - __ehdr_start);
}

EXPORTED void emulator_end() {
  using namespace emulator;
  munmap(arena, regions.size() * SLOT);
  munmap(stacks, stacks_size);
}
}
