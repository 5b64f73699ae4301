// Memory as the threads see it: every buffer and every shared array in a slot of the address space of its own, so that
// an address tells what it was meant for, with a shadow that remembers who wrote and who read.
#pragma once
#include "machine.h"

extern "C" char __ehdr_start[], _end[];  // of this library, which holds the text's constants

namespace emulator {

constexpr unsigned SLOT_SHIFT = 33;
constexpr uint64_t SLOT = uint64_t(1) << SLOT_SHIFT;
constexpr Stamp MANY_LANES = 1 << 10, MANY_WARPS = 1 << 11;  // of those that read at a stamp
constexpr Stamp IN_FLIGHT = ~Stamp(0);
constexpr unsigned MANY_BLOCKS = ~0u;

// of shared memory; within an epoch, reads that the last write or read of the same warp follows are forgotten
struct Cell {
  Stamp wrote, read;
};

// As the caller describes it; `base` is what the kernel is given.
struct Region {
  const char* name;
  char* base;
  uint64_t size;    // bytes
  unsigned granule; // bytes, a power of two: the least part that threads may share out among them
  bool shared, constant;
};

struct Shadow {
  unsigned shift = 0;
  std::vector<Cell> cells;                 // of shared memory
  std::vector<unsigned> writers, readers;  // of global memory: a block's number from 1
};

char* arena;
std::vector<Region> regions;
std::vector<Shadow> shadows;
unsigned block_number;
bool checked;

const char* kind(const Region& region) { return region.shared ? "shared array" : "buffer"; }

[[noreturn, gnu::noinline]] void fail_access(const char* does, const void* address, unsigned size, const char* why) {
  uint64_t slot = uint64_t(static_cast<const char*>(address) - arena) >> SLOT_SHIFT;
  if (slot >= regions.size()) fail("%s %u bytes at %p, outside of every buffer", does, size, address);
  const Region& region = regions[slot];
  fail("%s %u bytes at byte %lld of the %s %s (%llu bytes)%s", does, size,
       (long long)(static_cast<const char*>(address) - region.base), kind(region), region.name,
       (unsigned long long)region.size, why);
}

[[noreturn, gnu::noinline]] void fail_race(const char* does, const void* address, unsigned size, const char* did,
                                           Stamp then) {
  std::string who = then & MANY_WARPS || then & MANY_LANES ? "other threads" : thread_name(then & THREAD);
  fail_access(does, address, size, (", which " + who + " " + did + " with no barrier between").c_str());
}

[[noreturn, gnu::noinline]] void fail_block_race(const char* does, const void* address, unsigned size, const char* did,
                                                 unsigned block) {
  char why[128];
  if (block == MANY_BLOCKS) {
    snprintf(why, sizeof why, ", which other blocks %s", did);
  } else {
    unsigned i = block - 1;
    snprintf(why, sizeof why, ", which block (%u, %u, %u) %s", i % gridDim.x, i / gridDim.x % gridDim.y,
             i / gridDim.x / gridDim.y, did);
  }
  fail_access(does, address, size, why);
}

// Whether two accesses of shared memory, one of them a write, are not ordered by a barrier.
inline bool unordered(Stamp then, Stamp now) {
  Stamp differ = then ^ now;
  if (differ >> EPOCH_SHIFT || !(differ & (THREAD | MANY_LANES | MANY_WARPS))) return false;
  return differ & WARP || then & MANY_WARPS || !(differ & TURN);
}

inline void check_written(const Cell& cell, const char* does, const void* address, unsigned size) {
  if (cell.wrote == IN_FLIGHT) fail_access(does, address, size, ", which cp.async has not been waited for to write");
  if (unordered(cell.wrote, now)) fail_race(does, address, size, "wrote", cell.wrote);
}

inline void read_cell(Cell& cell, const void* address, unsigned size) {
  if (cell.wrote < first_stamp) fail_access("reads", address, size, ", which the block has not written");
  check_written(cell, "reads", address, size);
  Stamp differ = cell.read ^ now;
  if (!differ) return;
  if (differ >> EPOCH_SHIFT) {
    cell.read = now;
  } else if (differ & WARP) {
    cell.read |= MANY_WARPS;
  } else if (differ & TURN) {
    cell.read = now | (cell.read & MANY_WARPS);
  } else if (differ & THREAD) {
    cell.read |= MANY_LANES;
  }
}

inline void write_cell(Cell& cell, const void* address, unsigned size) {
  check_written(cell, "writes", address, size);
  if (unordered(cell.read, now)) fail_race("writes", address, size, "read", cell.read);
  cell.wrote = now;
}

template <bool WRITES>
inline void check_access(const void* address, unsigned size) {
  const char* does = WRITES ? "writes" : "reads";
  uint64_t slot = uint64_t(static_cast<const char*>(address) - arena) >> SLOT_SHIFT;
  if (__builtin_expect(slot >= regions.size(), 0)) {
    if (on_own_stack(address) || (!WRITES && address >= __ehdr_start && address < _end)) return;
    fail_access(does, address, size, "");
  }
  const Region& region = regions[slot];
  uint64_t at = static_cast<const char*>(address) - region.base;
  if (__builtin_expect(at >= region.size || region.size - at < size, 0)) {
    fail_access(does, address, size, ": out of bounds");
  }
  Shadow& shadow = shadows[slot];
  uint64_t first = at >> shadow.shift, last = (at + size - 1) >> shadow.shift;
  if (region.shared) {
    for (uint64_t i = first; i <= last; ++i) {
      if (WRITES) {
        write_cell(shadow.cells[i], address, size);
      } else {
        read_cell(shadow.cells[i], address, size);
      }
    }
    return;
  }
  if (WRITES && region.constant) fail_access(does, address, size, ", which is constant");
  for (uint64_t i = first; i <= last; ++i) {
    unsigned writer = shadow.writers[i], reader = shadow.readers[i];
    if (__builtin_expect(writer && writer != block_number, 0)) {
      fail_block_race(does, address, size, "wrote", writer);
    }
    if (WRITES) {
      if (reader && reader != block_number) fail_block_race(does, address, size, "read", reader);
      shadow.writers[i] = block_number;
    } else if (reader != block_number && reader != MANY_BLOCKS) {
      shadow.readers[i] = reader ? MANY_BLOCKS : block_number;
    }
  }
}

template <bool WRITES>
inline void check_aligned_access(const void* address, unsigned size, unsigned alignment) {
  if (__builtin_expect(reinterpret_cast<uintptr_t>(address) & (alignment - 1), 0)) {
    char why[64];
    snprintf(why, sizeof why, ": not aligned to %u bytes", alignment);
    fail_access(WRITES ? "writes" : "reads", address, size, why);
  }
  check_access<WRITES>(address, size);
}

// A copy on its way: its source as it was when it was issued.
struct Copy {
  char* to;
  uint64_t data[2];
  unsigned group;
};

struct Copies {
  std::vector<Copy> queue;  // oldest first
  unsigned group = 0;       // of the copies that come next
};
std::vector<Copies> copies;  // of each thread

template <class Visit>
inline void for_cells(const char* address, unsigned size, Visit visit) {
  uint64_t slot = uint64_t(address - arena) >> SLOT_SHIFT;
  Shadow& shadow = shadows[slot];
  uint64_t at = address - regions[slot].base;
  for (uint64_t i = at >> shadow.shift; i <= (at + size - 1) >> shadow.shift; ++i) visit(shadow.cells[i]);
}

bool is_shared(const void* address) {
  uint64_t slot = uint64_t(static_cast<const char*>(address) - arena) >> SLOT_SHIFT;
  return slot < regions.size() && regions[slot].shared;
}

void issue_copy(char* to, const char* from, bool valid) {
  if (checked) {
    if (!is_shared(to)) fail_access("copies", to, 16, ": cp.async writes shared memory only");
    if (valid && is_shared(from)) fail_access("copies", from, 16, ": cp.async reads global memory only");
    check_aligned_access<true>(to, 16, 16);
    if (valid) check_aligned_access<false>(from, 16, 16);
    for_cells(to, 16, [](Cell& cell) { cell.wrote = IN_FLIGHT; });
  }
  Copies& mine = copies[thread_number()];
  Copy copy{to, {0, 0}, mine.group};
  if (valid) __builtin_memcpy(copy.data, from, 16);
  mine.queue.push_back(copy);
}

// Lets all copies of the running thread land but those of its `pending` newest groups.
void land_copies(unsigned pending) {
  Copies& mine = copies[thread_number()];
  size_t landed = 0;
  while (landed < mine.queue.size() && mine.group - mine.queue[landed].group > pending) {
    const Copy& copy = mine.queue[landed++];
    __builtin_memcpy(copy.to, copy.data, 16);
    if (checked) for_cells(copy.to, 16, [](Cell& cell) { cell.wrote = now; });
  }
  mine.queue.erase(mine.queue.begin(), mine.queue.begin() + landed);
}

// What was never waited for when the block ended.
void drop_copies() {
  for (Copies& of_thread : copies) {
    for (const Copy& copy : of_thread.queue)
      if (checked) for_cells(copy.to, 16, [](Cell& cell) { cell.wrote = 0; });
    of_thread = {};
  }
}

}  // namespace emulator
