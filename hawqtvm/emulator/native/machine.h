// A block's threads as fibers.  Lanes of a warp hand over to each other where they must meet; warps take turns where
// the block meets.  Everything is one OS thread's, so a run is the same each time.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <sys/mman.h>

struct uint3 { unsigned x, y, z; };
uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

constexpr unsigned LANES = 32;
// not a power of two: equal frames of a warp's lanes must not share a set of the cache
constexpr size_t STACK = (64 << 10) + 1152;

// When a thread did something: the epoch counts the block's barriers, the turn the warp's within an epoch.
using Stamp = uint64_t;  // epoch:32 turn:20 flags:2 thread:10
constexpr Stamp THREAD = 0x3ff, WARP = 0x3e0, TURN = Stamp(0xfffff) << 12;
constexpr unsigned TURN_SHIFT = 12, EPOCH_SHIFT = 32;

struct Fiber {
  void* sp;
  uint3 at;
  char* stack;
  const void* site;  // where it waits
};

struct Warp {
  unsigned all, ready, waiting, exited;  // lanes; waiting: in the collective `what`; neither of them: at the barrier
  const char* what;
  unsigned turn, first;                  // first: its lane 0's number in the block
  unsigned a[LANES], b[LANES];           // what the lanes bring to a collective ...
  int c[2 * LANES];                      // ... and take from it
  uint64_t value[LANES], taken[LANES];
  const char* row[LANES];
  int loaded[LANES][4];
};

void* main_stack;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
Fiber* self;   // the running thread
Warp* warp;    // its warp
unsigned lane_number;
Stamp now, first_stamp;  // first_stamp: the block's first
unsigned epoch = 1;
bool failed;
std::string message;
void (*kernel)();
const void* site;  // where the text called, or accesses memory

// saves what a call must preserve; the jump in place of a return predicts well, since all lanes stop at one place
[[gnu::naked, gnu::noinline]] void switch_stacks(void** /*from*/, void* /*to*/) {
  __asm__(
      "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
      "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
      "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n pop %rcx\n jmp *%rcx\n");
}

// Notes what the running thread does that it must not; the run is over.
[[gnu::format(printf, 1, 2)]] void report(const char* format, ...) {
  char text[512], where[128];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  snprintf(where, sizeof where, "block (%u, %u, %u), thread (%u, %u, %u) ", blockIdx.x, blockIdx.y, blockIdx.z,
           threadIdx.x, threadIdx.y, threadIdx.z);
  message = std::string(where) + text;
  failed = true;
}

// The same on the thread's own stack, which is left for good.
template <class... Values>
[[noreturn, gnu::noinline]] void fail(const char* format, Values... values) {
  report(format, values...);
  switch_stacks(&self->sp, main_stack);
  __builtin_unreachable();
}

std::string thread_name(unsigned thread) {
  char text[64];
  const uint3& at = fibers[thread].at;
  snprintf(text, sizeof text, "thread (%u, %u, %u)", at.x, at.y, at.z);
  return text;
}

inline unsigned thread_number() { return warp->first + lane_number; }

inline void set_now() { now = Stamp(epoch) << EPOCH_SHIFT | Stamp(warp->turn) << TURN_SHIFT | thread_number(); }

inline void enter(unsigned lane) {
  lane_number = lane;
  self = &fibers[warp->first + lane];
  threadIdx = self->at;
  set_now();
}

// A lane that does not go on where others wait: what keeps it from there.
[[noreturn]] void fail_divergent() {
  const Warp& w = *warp;
  unsigned waiting = __builtin_ctz(w.waiting), away = __builtin_ctz(w.all & ~w.waiting);
  const char* doing = w.exited >> away & 1 ? "has exited" : "waits at __syncthreads";
  enter(waiting);
  site = self->site;
  fail("waits at %s, but %s of its warp %s", w.what, thread_name(w.first + away).c_str(), doing);
}

// Runs another lane of the warp, or other warps if none can go on; returns when the caller's lane can.
inline void hand_over() {
  Fiber* from = self;
  from->site = site;
  unsigned later = warp->ready & ~1u << lane_number;
  unsigned next = later ? later : warp->ready;
  if (next) {
    enter(__builtin_ctz(next));
    switch_stacks(&from->sp, self->sp);
    return;
  }
  if (warp->waiting) fail_divergent();
  switch_stacks(&from->sp, main_stack);
}

// A warp collective: each lane has brought its operands; the last to come lets `execute` work on all of them.
template <class Execute>
inline void meet(const char* what, Execute execute) {
  Warp& w = *warp;
  unsigned bit = 1u << lane_number;
  if (w.waiting == 0) {
    w.what = what;
  } else if (w.what != what) {
    fail("comes to %s while %s of its warp waits at %s", what,
         thread_name(w.first + __builtin_ctz(w.waiting)).c_str(), w.what);
  }
  w.waiting |= bit;
  if (w.waiting == w.all) {
    w.waiting = 0;
    w.ready = w.all;
    execute(w);
    return;
  }
  w.ready &= ~bit;
  hand_over();
}

void check_full(const char* what) {
  if (warp->all != ~0u) fail("comes to %s in a warp of %d threads", what, __builtin_popcount(warp->all));
}

void check_mask(const char* what, unsigned mask) {
  if ((mask & warp->all) != warp->all) fail("comes to %s with the mask 0x%x, which lacks lanes", what, mask);
}

void run_thread() {
  kernel();
  unsigned bit = 1u << lane_number;
  warp->exited |= bit;
  warp->ready &= ~bit;
  hand_over();
  __builtin_unreachable();
}

void start_threads() {
  for (Fiber& fiber : fibers) {
    void** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(fiber.stack) + STACK) & ~uintptr_t(15));
    *--top = nullptr;  // what would be the return address
    *--top = reinterpret_cast<void*>(run_thread);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    fiber.sp = top;
  }
  for (Warp& w : warps) {
    w.ready = w.all;
    w.waiting = w.exited = w.turn = 0;
  }
}

void next_epoch() {
  ++epoch;
  for (Warp& w : warps) w.turn = 0;
}

// The first thread whose bit stands in `of` its warp, for a message.
template <class Of>
unsigned first_thread(Of of) {
  for (const Warp& w : warps)
    if (of(w)) return w.first + __builtin_ctz(of(w));
  return 0;
}

// All threads of a block to their end.
void run_block() {
  start_threads();
  first_stamp = Stamp(epoch) << EPOCH_SHIFT;
  for (;;) {
    bool exited = false, at_barrier = false;
    for (Warp& w : warps) {
      warp = &w;
      enter(__builtin_ctz(w.ready));
      switch_stacks(&main_stack, self->sp);
      if (failed) return;
      exited |= w.exited != 0;
      at_barrier |= w.exited != w.all;
    }
    next_epoch();
    if (!at_barrier) return;
    if (exited) {
      unsigned gone = first_thread([](const Warp& w) { return w.exited; });
      unsigned waits = first_thread([](const Warp& w) { return w.all & ~w.exited; });
      warp = &warps[waits / LANES];
      enter(waits % LANES);
      site = self->site;
      report("waits at __syncthreads, but %s has exited", thread_name(gone).c_str());
      return;
    }
    for (Warp& w : warps) w.ready = w.all;
  }
}

bool on_own_stack(const void* address) {
  const char* at = static_cast<const char*>(address);
  return at >= self->stack && at < self->stack + STACK;
}

char* stacks;
size_t stacks_size;

void make_block(uint3 block) {
  unsigned count = block.x * block.y * block.z;
  blockDim = block;
  stacks_size = count * STACK;
  stacks = static_cast<char*>(
      mmap(nullptr, stacks_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  fibers.assign(count, {});
  warps.assign((count + LANES - 1) / LANES, {});
  for (unsigned i = 0; i < count; ++i) {
    fibers[i].at = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    fibers[i].stack = stacks + i * STACK;
    warps[i / LANES].all |= 1u << i % LANES;
    warps[i / LANES].first = i / LANES * LANES;
  }
}

}  // namespace emulator
