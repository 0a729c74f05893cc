// The boundary cue on a GPU: relu(weight * (shallow - deep) + bias), a 3 x 3 convolution of three channels. Song, Kim, Chun
// & Lee, "Multi Image Depth from Defocus Network with Boundary Cue for Dual Aperture Camera", ICASSP 2020.
// cue.py says with which #defines, cuda.py compiles this text with NVRTC, the tests with the host's compiler, too.
//
// What costs time is writing the features. So the difference is never stored: a block stages it in shared memory, and a
// thread keeps what its ROWS outputs, one below the other, need of it in registers while it goes through a group of the
// features, whose weights lie in shared memory, too, and are read by all threads at once.
//
// Given by #define:
//   FEATURES, AT_ONCE          of the cue, and how many of them a block computes
//   PICTURE_ELEMENT            what the pictures are made of: see numbers.cuh
//   CUE_ELEMENT                what weight, bias and cue are made of
//   TILE_WIDTH, WARPS, ROWS    a block of TILE_WIDTH x WARPS threads has TILE_WIDTH x (WARPS * ROWS) outputs
// Pictures are (N, 3, height, width), weight (FEATURES, 3, 3, 3), bias (FEATURES), the cue (N, FEATURES, height, width),
// all contiguous; outside the pictures their difference is 0. blockIdx.z counts groups of features, picture by picture.

#define INLINE __device__ __forceinline__

#define ELEMENT PICTURE_ELEMENT
namespace picture {
#include "numbers.cuh"
}
#undef ELEMENT
#define ELEMENT CUE_ELEMENT
namespace cue {
#include "numbers.cuh"
}
#undef ELEMENT

constexpr int CHANNELS = 3, TAPS = 9 * CHANNELS;
constexpr int GROUPS = (FEATURES + AT_ONCE - 1) / AT_ONCE;
constexpr int THREADS = TILE_WIDTH * WARPS;
constexpr int TILE_COLUMNS = TILE_WIDTH + 2, TILE_ROWS = WARPS * ROWS + 2, TILE = TILE_COLUMNS * TILE_ROWS;
constexpr int FLOATS = 4 * ((TAPS + 1 + 3) / 4);  // of a feature: its weights and its bias, in whole float4

struct Shared {
  float4 features[AT_ONCE * FLOATS / 4];
  float difference[CHANNELS * TILE];
};

extern "C" __global__ void __launch_bounds__(THREADS) boundary_cue(
    const picture::Element* __restrict__ shallow, const picture::Element* __restrict__ deep,
    const cue::Element* __restrict__ weight, const cue::Element* __restrict__ bias, int height, int width,
    cue::Element* __restrict__ out) {
  __shared__ Shared shared;
  const int thread = threadIdx.y * TILE_WIDTH + threadIdx.x;
  const int number = blockIdx.z / GROUPS, first = blockIdx.z % GROUPS * AT_ONCE;
  const int count = FEATURES - first < AT_ONCE ? FEATURES - first : AT_ONCE;
  const size_t plane = static_cast<size_t>(height) * width;
  shallow += number * CHANNELS * plane;
  deep += number * CHANNELS * plane;

  float* const features = reinterpret_cast<float*>(shared.features);
  for (int at = thread; at < count * FLOATS; at += THREADS) {
    const int feature = first + at / FLOATS, tap = at % FLOATS;
    features[at] = tap < TAPS    ? cue::load(weight + feature * TAPS + tap)
                   : tap == TAPS ? cue::load(bias + feature)
                                 : 0.f;
  }
  const int left = blockIdx.x * TILE_WIDTH - 1, top = blockIdx.y * WARPS * ROWS - 1;
  for (int at = thread; at < CHANNELS * TILE; at += THREADS) {
    const int channel = at / TILE, x = left + at % TILE_COLUMNS, y = top + at % TILE / TILE_COLUMNS;
    const bool inside = 0 <= x && x < width && 0 <= y && y < height;
    const size_t pixel = inside ? channel * plane + static_cast<size_t>(y) * width + x : 0;
    shared.difference[at] = inside ? picture::load(shallow + pixel) - picture::load(deep + pixel) : 0.f;
  }
  __syncthreads();

  const int x = blockIdx.x * TILE_WIDTH + threadIdx.x, y = (blockIdx.y * WARPS + threadIdx.y) * ROWS;
  if (x >= width || y >= height) return;
  float around[CHANNELS][ROWS + 2][3];
#pragma unroll
  for (int c = 0; c < CHANNELS; ++c) {
#pragma unroll
    for (int v = 0; v < ROWS + 2; ++v) {
#pragma unroll
      for (int u = 0; u < 3; ++u) {
        around[c][v][u] = shared.difference[c * TILE + (threadIdx.y * ROWS + v) * TILE_COLUMNS + threadIdx.x + u];
      }
    }
  }
  out += (static_cast<size_t>(number) * FEATURES + first) * plane + static_cast<size_t>(y) * width + x;
#pragma unroll 1
  for (int feature = 0; feature < count; ++feature, out += plane) {
    float weights[FLOATS];
#pragma unroll
    for (int at = 0; at < FLOATS / 4; ++at) {
      const float4 four = shared.features[feature * (FLOATS / 4) + at];
      weights[4 * at] = four.x;
      weights[4 * at + 1] = four.y;
      weights[4 * at + 2] = four.z;
      weights[4 * at + 3] = four.w;
    }
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
      float sum = weights[TAPS];
#pragma unroll
      for (int tap = 0; tap < TAPS; ++tap) {
        sum = fmaf(weights[tap], around[tap / 9][row + tap % 9 / 3][tap % 3], sum);
      }
      if (y + row < height) cue::store(out + static_cast<size_t>(row) * width, sum < 0.f ? 0.f : sum);  // NaN stays
    }
  }
}
