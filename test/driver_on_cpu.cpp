// Just enough of CUDA's driver to run `trt/device.py` and `trt/runtime.py` through NVIDIA's own bindings without a GPU: device
// memory is the host's, kernels are compiled for the host, streams do at once what is queued, and what is captured is kept
// and done when it is replayed. Contexts must be current, memory is counted, and there is only so much of it.
#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <vector>

using Work = std::vector<std::function<void()>>;
struct Index {
  unsigned x, y, z;
};
using Launcher = bool (*)(const Index*, const Index*, void**);
enum { SUCCESS = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_CONTEXT = 201 };

static thread_local int contexts = 0;
static std::map<void*, std::size_t> held;
static std::size_t used = 0, room = 1 << 30;
static std::size_t streams = 0, retained = 0;
static Work* capturing = nullptr;
static Launcher kernel = nullptr;

extern "C" {

void fake_room(std::size_t bytes) { room = bytes; }
std::size_t fake_used() { return used; }
std::size_t fake_streams() { return streams; }
std::size_t fake_retained() { return retained; }
void fake_kernel(Launcher launcher) { kernel = launcher; }

static int take(void** at, std::size_t size) {
  if (!contexts) return NO_CONTEXT;
  if (used + size > room) return OUT_OF_MEMORY;
  *at = std::malloc(size);
  std::memset(*at, 0xff, size);
  held[*at] = size;
  used += size;
  return SUCCESS;
}

static int give(void* at) {
  if (!contexts) return NO_CONTEXT;
  if (!held.count(at)) return INVALID;
  used -= held[at];
  held.erase(at);
  std::free(at);
  return SUCCESS;
}

static int queue(std::function<void()> work) {
  if (!contexts) return NO_CONTEXT;
  if (capturing) {
    capturing->push_back(std::move(work));
  } else {
    work();
  }
  return SUCCESS;
}

int cuInit(unsigned) { return SUCCESS; }
int cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
int cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int* device, int index) { return *device = index, SUCCESS; }
int cuDeviceGetName(char* name, int length, int) { return std::strncpy(name, "a CPU", length), SUCCESS; }
int cuDeviceTotalMem(std::size_t* size, int) { return *size = room, SUCCESS; }
int cuDeviceGetAttribute(int* value, int which, int) { return *value = which == 75 ? 9 : 0, SUCCESS; }
int cuDevicePrimaryCtxRetain(void** context, int) { return ++retained, *context = &contexts, SUCCESS; }
int cuDevicePrimaryCtxRelease(int) { return --retained, SUCCESS; }
int cuCtxPushCurrent(void* context) { return context == &contexts ? (++contexts, SUCCESS) : INVALID; }
int cuCtxPopCurrent(void** context) { return *context = &contexts, --contexts, SUCCESS; }
int cuStreamCreate(void** stream, unsigned flags) { return ++streams, *stream = &streams, flags == 1 ? SUCCESS : INVALID; }
int cuStreamDestroy(void* stream) { return stream == &streams ? (--streams, SUCCESS) : INVALID; }
int cuStreamSynchronize(void* stream) { return stream == &streams && !capturing ? SUCCESS : INVALID; }
int cuEventCreate(void** event, unsigned) { return *event = &used, SUCCESS; }
int cuEventDestroy(void*) { return SUCCESS; }
int cuEventRecord(void* event, void*) { return event == &used ? SUCCESS : INVALID; }
int cuStreamWaitEvent(void* stream, void* event, unsigned) { return stream == &streams && event == &used ? SUCCESS : INVALID; }
int cuMemAlloc(void** at, std::size_t size) { return take(at, size); }
int cuMemFree(void* at) { return give(at); }
int cuMemHostAlloc(void** at, std::size_t size, unsigned flags) { return flags == 1 ? take(at, size) : INVALID; }
int cuMemFreeHost(void* at) { return give(at); }
int cuMemcpyHtoDAsync(void* to, const void* from, std::size_t size, void* stream) {
  return stream == &streams ? queue([=] { std::memcpy(to, from, size); }) : INVALID;
}
int cuMemcpyDtoHAsync(void* to, const void* from, std::size_t size, void* stream) {
  return stream == &streams ? queue([=] { std::memcpy(to, from, size); }) : INVALID;
}
int cuStreamBeginCapture(void*, int mode) { return mode == 1 ? (capturing = new Work, SUCCESS) : INVALID; }
int cuStreamEndCapture(void*, void** graph) { return *graph = capturing, capturing = nullptr, SUCCESS; }
int cuGraphInstantiateWithFlags(void** recorded, void* graph, unsigned long long) {
  return *recorded = new Work(*static_cast<Work*>(graph)), SUCCESS;
}
int cuGraphDestroy(void* graph) { return delete static_cast<Work*>(graph), SUCCESS; }
int cuGraphExecDestroy(void* recorded) { return delete static_cast<Work*>(recorded), SUCCESS; }
int cuGraphLaunch(void* recorded, void*) {
  if (!contexts) return NO_CONTEXT;
  for (const auto& work : *static_cast<Work*>(recorded)) work();
  return SUCCESS;
}
int cuModuleLoadData(void** module, const void* image) {
  *module = &kernel;
  return contexts && !capturing && std::memcmp(image, "\x7f" "ELF", 4) == 0 ? SUCCESS : INVALID;
}
int cuModuleGetFunction(void** function, void*, const char*) { return *function = reinterpret_cast<void*>(kernel), SUCCESS; }
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned,
                   void* stream, void** parameters, void**) {
  if (stream != &streams) return INVALID;
  std::vector<std::uint64_t> values(5);  // two pointers, two integers, a pointer: those of the PSF layer without gradients
  for (int at = 0; at < 5; ++at) std::memcpy(&values[at], parameters[at], at == 2 || at == 3 ? 4 : 8);
  return queue([=]() mutable {
    void* addresses[5];
    for (int at = 0; at < 5; ++at) addresses[at] = &values[at];
    const Index grid = {gx, gy, gz}, block = {bx, by, bz};
    reinterpret_cast<Launcher>(function)(&grid, &block, addresses);
  });
}

int cuGetProcAddress_v2(const char* name, void** function, int, std::uint64_t, void*) {
  static void* self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  *function = std::strncmp(name, "cuGetProcAddress", 16) == 0 ? reinterpret_cast<void*>(&cuGetProcAddress_v2) : dlsym(self, name);
  return SUCCESS;
}
int cuGetProcAddress(const char* name, void** function, int version, std::uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}
}
