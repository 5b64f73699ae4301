// Stands for NVIDIA's driver where there is none: device memory on the host, kernels run by the emulator's libraries.
//
// A "cubin" here is text, then such a library: "EMULATED name mode us shared... | parameters... | bytes\n", where `mode`
// says what the kernel does wrong, `us` how long it takes; a shared array is "bytes:granule", a parameter
// "granule:constant".  Time is that of a clock of its own, and once an event was recorded kernels only let it pass.
// Environment: STANDIN_DEVICES "name:major:minor,...", STANDIN_INIT what cuInit answers, STANDIN_LATE how many queries
// find an event passed, STANDIN_LOG a file that gets a line a launch and fill.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace {

enum { INVALID_VALUE = 1, NO_DEVICE = 100, INVALID_IMAGE = 200, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700 };

struct Region {  // as the emulator has it
  const char* name;
  char* base;
  uint64_t size;
  unsigned granule;
  bool shared, constant;
};
struct Launch {
  void* kernel;
  Region* regions;
  unsigned count, grid[3], block[3];
  bool checked;
};

struct Kernel {
  std::string name, mode;
  double us;
  std::vector<Region> shared, parameters;
  void* library;
};
struct Device {
  std::string name;
  int major, minor;
};

std::map<uint64_t, uint64_t> memory;  // place -> size
double now = 0;                       // microseconds
bool timing = false, ruined = false, current = false;
int late = getenv("STANDIN_LATE") ? atoi(getenv("STANDIN_LATE")) : 0;

std::vector<Device> devices() {
  std::vector<Device> found;
  std::stringstream text(getenv("STANDIN_DEVICES") ? getenv("STANDIN_DEVICES") : "Tesla T4:7:5");
  for (std::string one; getline(text, one, ',');) {
    size_t first = one.find(':'), second = one.rfind(':');
    found.push_back({one.substr(0, first), atoi(one.c_str() + first + 1), atoi(one.c_str() + second + 1)});
  }
  return found;
}

// Bytes from `place` to the end of what was allocated there; 0 for an address of none.
uint64_t room(uint64_t place) {
  auto after = memory.upper_bound(place);
  if (after == memory.begin()) return 0;
  auto [base, size] = *--after;
  return place < base + size ? base + size - place : 0;
}

int use(uint64_t place, uint64_t size) {
  if (ruined) return ILLEGAL_ADDRESS;
  return current && room(place) >= size ? 0 : INVALID_VALUE;
}

char* host(uint64_t place) { return reinterpret_cast<char*>(place); }

void log(const std::string& line) {
  const char* path = getenv("STANDIN_LOG");
  if (FILE* file = path ? fopen(path, "a") : nullptr) {
    fprintf(file, "%s\n", line.c_str());
    fclose(file);
  }
}

template <class F>
F symbol(void* library, const char* name) {
  return reinterpret_cast<F>(dlsym(library, name));
}

bool emulate(const Kernel& kernel, const unsigned* grid, const unsigned* block, const std::vector<uint64_t>& places) {
  std::vector<Region> regions = kernel.shared;
  for (size_t i = 0; i < places.size(); ++i) {
    regions.push_back(kernel.parameters[i]);
    regions.back().size = room(places[i]);
  }
  Launch launch{dlsym(kernel.library, "emulated"), regions.data(), unsigned(regions.size())};
  memcpy(launch.grid, grid, sizeof launch.grid);
  memcpy(launch.block, block, sizeof launch.block);
  launch.checked = false;
  if (!symbol<bool (*)(Launch*)>(kernel.library, "emulator_begin")(&launch)) return false;
  const Region* given = regions.data() + kernel.shared.size();
  for (size_t i = 0; i < places.size(); ++i) memcpy(given[i].base, host(places[i]), given[i].size);
  bool right = true;
  for (unsigned i = 0; right && i < grid[0] * grid[1] * grid[2]; ++i) {
    right = symbol<bool (*)(unsigned)>(kernel.library, "emulator_block")(i);
  }
  for (size_t i = 0; i < places.size(); ++i) {
    bool written = memcmp(host(places[i]), given[i].base, given[i].size);
    if (written && kernel.mode == "wrong") *given[i].base ^= 1;
    memcpy(host(places[i]), given[i].base, given[i].size);
  }
  symbol<void (*)()>(kernel.library, "emulator_end")();
  return right;
}

std::vector<Region> described(std::istream& text, bool shared) {
  std::vector<Region> found;
  for (std::string word; text >> word && word != "|";) {
    unsigned long first = 0, second = 0;
    sscanf(word.c_str(), "%lu:%lu", &first, &second);
    found.push_back(shared ? Region{"shared", nullptr, first, unsigned(second), true, false}
                           : Region{"buffer", nullptr, 0, unsigned(first), false, second != 0});
  }
  return found;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return getenv("STANDIN_INIT") ? atoi(getenv("STANDIN_INIT")) : 0; }
int cuDriverGetVersion(int* version) { return *version = 12040, 0; }
int cuDeviceGetCount(int* count) { return *count = int(devices().size()), 0; }
int cuDeviceGet(int* device, int index) { return *device = index, 0; }

int cuDeviceGetName(char* name, int size, int device) {
  snprintf(name, size, "%s", devices()[device].name.c_str());
  return 0;
}

int cuDeviceGetAttribute(int* value, int kind, int device) {
  std::map<int, int> known{{16, 40}, {38, 1 << 12}, {75, devices()[device].major}, {76, devices()[device].minor}};
  return known.count(kind) ? (*value = known[kind], 0) : INVALID_VALUE;
}

int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &current, 0; }
int cuCtxSetCurrent(void* context) { return current = context == &current, current ? 0 : INVALID_VALUE; }
int cuCtxSynchronize() { return ruined ? ILLEGAL_ADDRESS : 0; }
int cuMemGetInfo_v2(size_t* free, size_t* total) { return *free = *total = size_t(1) << 30, 0; }

int cuMemAlloc_v2(uint64_t* place, size_t size) {
  if (!current || !size) return INVALID_VALUE;
  *place = reinterpret_cast<uint64_t>(aligned_alloc(256, (size + 255) / 256 * 256));
  memory[*place] = size;
  return 0;
}

int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t size) {
  int code = use(to, size);
  if (!code) memcpy(host(to), from, size);
  return code;
}

int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t size) {
  int code = use(from, size);
  if (!code) memcpy(to, host(from), size);
  return code;
}

int cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t size) {
  int code = use(to, size) ? use(to, size) : use(from, size);
  if (!code) memcpy(host(to), host(from), size);
  return code;
}

int cuMemsetD8Async(uint64_t to, unsigned char byte, size_t size, void*) {
  int code = use(to, size);
  if (!code && !timing) memset(host(to), byte, size);
  now += 1;
  log("fill " + std::to_string(size));
  return code;
}

int cuModuleLoadData(void** module, const char* image) {
  if (strncmp(image, "EMULATED ", 9)) return INVALID_IMAGE;
  const char* end = strchr(image, '\n');
  std::stringstream text(std::string(image + 9, end));
  Kernel kernel;
  text >> kernel.name >> kernel.mode >> kernel.us;
  kernel.shared = described(text, true);
  kernel.parameters = described(text, false);
  size_t bytes = 0;
  text >> bytes;
  char path[] = "/tmp/hawqtvm-standin-XXXXXX";
  int file = mkstemp(path);
  bool written = write(file, end + 1, bytes) == ssize_t(bytes);
  close(file);
  kernel.library = written ? dlopen(path, RTLD_NOW) : nullptr;
  unlink(path);
  if (!kernel.library) return INVALID_IMAGE;
  return *module = new Kernel(kernel), 0;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
  *function = module;
  return static_cast<Kernel*>(module)->name == name ? 0 : NOT_FOUND;
}

int cuFuncSetAttribute(void*, int kind, int value) { return kind == 8 && value > 0 ? 0 : INVALID_VALUE; }

int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void*, void** parameters, void**) {
  const Kernel& kernel = *static_cast<Kernel*>(function);
  std::vector<uint64_t> places;
  std::string line = std::string(timing ? "timed " : "checked ") + kernel.name + " " + std::to_string(shared);
  for (size_t i = 0; i < kernel.parameters.size(); ++i) {
    places.push_back(*static_cast<uint64_t*>(parameters[i]));
    if (int code = use(places.back(), 1)) return code;
    line += " " + std::to_string(places.back());
  }
  log(line);
  now += kernel.us;
  if (kernel.mode == "hangs") sleep(1000);
  if (kernel.mode == (timing ? "faults-late" : "faults")) ruined = true;
  if (timing || ruined || kernel.mode == "does-nothing") return 0;
  unsigned grid[]{gx, gy, gz}, block[]{bx, by, bz};
  ruined = !emulate(kernel, grid, block, places);
  return 0;
}

int cuEventCreate(double** event, unsigned) { return *event = new double(0), 0; }
int cuEventRecord(double* event, void*) { return *event = now, timing = true, 0; }
int cuEventQuery(double*) { return ruined ? ILLEGAL_ADDRESS : late-- > 0 ? 0 : NOT_READY; }

int cuEventElapsedTime(float* milliseconds, double* start, double* stop) {
  *milliseconds = float((*stop - *start) / 1e3);
  return 0;
}

int cuGetErrorName(int code, const char** name) {
  static std::map<int, const char*> names{{INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
                                          {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
                                          {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
                                          {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
                                          {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"}};
  return names.count(code) ? (*name = names[code], 0) : INVALID_VALUE;
}
}
