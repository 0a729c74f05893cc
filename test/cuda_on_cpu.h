// Just enough of CUDA C++ to run psf.cu on the CPU: the threads of a block are fibers that take turns between barriers,
// so each runs as far as it can before the next one starts, and a missing barrier shows.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct Index {
  unsigned x, y, z;
};
static Index threadIdx, blockIdx;

struct alignas(16) float4 {
  float x, y, z, w;
};

static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// Wrong by two units in the last place, as the GPU's may be.
static inline float coarse_exp2f(float exponent) { return exp2f(exponent) * (1.f + 0x1p-22f); }
#define exp2f coarse_exp2f

static inline float __saturatef(float value) { return value > 0.f ? (value < 1.f ? value : 1.f) : 0.f; }

static inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(256 * 1024);
  bool done = false;
};

static std::vector<Fiber> fibers;
static std::size_t running;
static ucontext_t scheduler;
static std::function<void()> body;

static inline void __syncthreads() { swapcontext(&fibers[running].context, &scheduler); }

static void run_fiber() {
  body();
  fibers[running].done = true;
}

// Run one block; false where some threads wait at a barrier that others never reach.
static bool run_block(Index block) {
  fibers.resize(block.x * block.y * block.z);
  for (Fiber& fiber : fibers) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &scheduler;
    fiber.done = false;
    makecontext(&fiber.context, run_fiber, 0);
  }
  for (std::size_t done = 0; done == 0;) {
    for (running = 0; running < fibers.size(); ++running) {
      const unsigned thread = static_cast<unsigned>(running);
      threadIdx = {thread % block.x, thread / block.x % block.y, thread / (block.x * block.y)};
      swapcontext(&scheduler, &fibers[running].context);
      done += fibers[running].done;
    }
    if (done != 0 && done != fibers.size()) return false;
  }
  return true;
}

// As cuLaunchKernel: each of `arguments` points to one.
template <class... Parameters, std::size_t... I>
static bool run_grid(void (*kernel)(Parameters...), Index grid, Index block, void** arguments,
                     std::index_sequence<I...>) {
  body = [=] { kernel(*static_cast<Parameters*>(arguments[I])...); };
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        if (!run_block(block)) return false;
      }
    }
  }
  return true;
}

template <class... Parameters>
static bool launch(void (*kernel)(Parameters...), const Index* grid, const Index* block, void** arguments) {
  return run_grid(kernel, *grid, *block, arguments, std::index_sequence_for<Parameters...>{});
}
