// The PSF layer on a GPU: a convolution whose kernel changes from pixel to pixel with its circle of confusion (CoC).
// Gur & Wolf, "Single Image Depth Estimation Trained via Depth from Defocus Cues", CVPR 2019, equations 4 to 9.
// settings.py defines the two PSFs, reference.py the sums; cuda.py compiles this text with NVRTC, the tests with the
// host's compiler, too.
//
// Everything is a gather of one of two kinds over the window of taps around an output:
//   LentGather  weighs a tap with the PSF of the pixel it lies on  (`source` forward, `destination` image gradient),
//   OwnGather   weighs it with the PSF of the output's own pixel   (`destination` forward, all else of the gradients).
// With w the weight, S its sum at an output x, and G = dL/dout / S, the gradients are
//   source:      dL/dI(y) = sum over x of w(C_y) G(x)    dL/dC(y) = sum over x of w'(C_y) [I(y) G(x) - G(x) out(x)]
//   destination: dL/dI(y) = sum over x of w(C_x) G(x)    dL/dC(x) = sum over y of w'(C_x) G(x) [I(y) - out(x)],
// with the products summed over the channels: no atomics anywhere.
//
// A block stages in shared memory what its outputs need of each pixel around, as one record of four floats (channels go
// in groups of up to three); outside the image lie records that lend nothing. A thread then computes ROWS outputs, one
// below the other, so that a record is read, and a lent weight computed, once for all of them. OwnGather first adds the
// up to four records that weigh the same: left and right, above and below.
//
// Given by #define:
//   WINDOW, CHANNELS, SPREAD   as in settings.py, and the number of channels
//   DISK, DESTINATION          1 or 0: disk or Gaussian PSF; the CoC taken at the destination or the source
//   ELEMENT                    what images and CoC are made of: 1 float, 2 half, 3 bfloat16
//   BACKWARD                   1 or 0: which of the two kernels
//   WEIGHT_SUM                 1 or 0: whether psf_forward writes S, which only the gradients need
//   TILE_WIDTH, WARPS, ROWS    a block of TILE_WIDTH x WARPS threads has TILE_WIDTH x (WARPS * ROWS) outputs
// Images are (N, CHANNELS, height, width), the CoC and S (N, 1, height, width), contiguous; blockIdx.z counts N.

#define INLINE __device__ __forceinline__

constexpr int RADIUS = WINDOW / 2;
constexpr int GROUPS = (CHANNELS + 2) / 3;
constexpr int GROUP = (CHANNELS + GROUPS - 1) / GROUPS;
constexpr int THREADS = TILE_WIDTH * WARPS;
constexpr int TILE_COLUMNS = TILE_WIDTH + 2 * RADIUS;
constexpr int TILE_ROWS = WARPS * ROWS + 2 * RADIUS;
constexpr int STRIDE = TILE_COLUMNS + 1;  // a last column of records that lend nothing

#include "numbers.cuh"

// ----------------------------------------------------------------------------------------------------------- the PSFs

// A pixel tells its neighbours of its PSF in one number, its `shape`: for the disk how far it reaches, (C + 1) / 2; for
// the Gaussian the binary logarithm of its fall within one pixel, -EXPONENT / C^2. The amplitude follows from it.
constexpr double LOG2_E = 1.4426950408889634;
constexpr double NARROWEST = 1e-15, WIDEST = 1e15;  // beyond, any Gaussian is a point or flat
constexpr double SIGMA = SPREAD < NARROWEST ? NARROWEST : SPREAD > WIDEST ? WIDEST : SPREAD;  // in units of the CoC
constexpr float VARIANCE = static_cast<float>(SIGMA * SIGMA);
constexpr float EXPONENT = static_cast<float>(0.5 * LOG2_E / (SIGMA * SIGMA));
constexpr float DISK_RIM = 1.f / 3.f;  // a disk with a ramp one pixel wide along its rim has the sum pi / 4 (C^2 + 1/3)
constexpr float LENDS_NOTHING = 0.f;  // a shape whose weights are 0

INLINE float in_window(float coc) { return fminf(coc, static_cast<float>(WINDOW)); }

// 1 / (C^2 + 1/3) for the disk, C^-2 for the Gaussian.
INLINE float amplitude_of(float coc) { return 1.f / fmaf(in_window(coc), in_window(coc), DISK ? DISK_RIM : 0.f); }

INLINE float shape_of(float coc) { return DISK ? fmaf(0.5f, in_window(coc), 0.5f) : -EXPONENT * amplitude_of(coc); }

// How much of a pixel `away` pixels from its centre a disk covers.
INLINE float covered(float reach, float away) { return __saturatef(reach - away); }

// The weights that one pixel lends along a column, from the row `nearest` rows away outwards, but for the amplitude.
struct LentWeights {
  float shape, weight, ratio, ratio_step;

  INLINE LentWeights(float shape, float away, int nearest) : shape(shape) {
    if (DISK) {
      weight = covered(shape, away);
    } else {
      weight = exp2f(shape * away);
      ratio = exp2f(shape * static_cast<float>(2 * nearest + 1));  // from v^2 to (v + 1)^2
      ratio_step = nearest == 0 ? ratio * ratio : exp2f(2.f * shape);
    }
  }

  INLINE void step_out(float away) {
    if (DISK) {
      weight = covered(shape, away);
    } else {
      weight *= ratio;
      ratio *= ratio_step;
    }
  }

  INLINE float amplitude() const { return DISK ? amplitude_of(2.f * shape - 1.f) : shape; }  // but for AMPLITUDE_SCALE
};
constexpr float AMPLITUDE_SCALE = DISK ? 1.f : -1.f / EXPONENT;

// The PSF of an output's own CoC, and its derivative by the CoC, both without the factor `amplitude`.
struct OwnPsf {
  float shape, amplitude, slope_rise, slope_fall;

  OwnPsf() = default;

  INLINE explicit OwnPsf(float coc) : shape(shape_of(coc)), amplitude(amplitude_of(coc)) {
    const float inverse = 1.f / in_window(coc);
    slope_rise = DISK ? 0.5f : inverse * inverse * inverse / VARIANCE;
    slope_fall = DISK ? -2.f * in_window(coc) * amplitude : -2.f * inverse;
  }

  INLINE float weight(float away) const { return DISK ? covered(shape, away) : exp2f(shape * away); }

  INLINE float slope(float weight, float away) const {
    if (!DISK) return weight * fmaf(slope_rise, away, slope_fall);
    const bool on_ramp = fabsf(shape - 0.5f - away) < 0.5f;
    return fmaf(slope_fall, weight, on_ramp ? slope_rise : 0.f);
  }
};

// ---------------------------------------------------------------------------------------------------- blocks and tiles

struct Shared {
  float4 tile[TILE_ROWS * STRIDE];                          // of records: the number in x, the channels in y, z and w
  float distances[DISK ? (RADIUS + 1) * (RADIUS + 1) : 1];  // of the tap u columns and v rows away

  // How far a tap is away, as the PSFs want it: the distance for the disk, its square for the Gaussian.
  INLINE float away(int u, int v) const {
    return DISK ? distances[u * (RADIUS + 1) + v] : static_cast<float>(u * u) + static_cast<float>(v * v);
  }
};

// How many blocks a multiprocessor shall hold at least, which says how many registers a thread may take.
constexpr int ALL_REGISTERS = 64 * 1024, REGISTERS = BACKWARD || DESTINATION ? 128 : 64;  // OwnGather takes more
constexpr int ALL_MEMORY = 227 * 1024, MEMORY = sizeof(Shared) + 1024;  // bytes on Hopper; 1 KiB is the system's
constexpr int BLOCKS_BY_REGISTERS = ALL_REGISTERS / (REGISTERS * THREADS), BLOCKS_BY_MEMORY = ALL_MEMORY / MEMORY;
constexpr int MIN_BLOCKS = BLOCKS_BY_MEMORY < BLOCKS_BY_REGISTERS ? BLOCKS_BY_MEMORY : BLOCKS_BY_REGISTERS;

// Where the thread's outputs are.
struct Place {
  int height, width, x, y;

  INLINE Place(int height, int width)
      : height(height),
        width(width),
        x(blockIdx.x * TILE_WIDTH + threadIdx.x),
        y((blockIdx.y * WARPS + threadIdx.y) * ROWS) {}

  INLINE bool has(int row) const { return x < width && y + row < height; }
  INLINE unsigned pixel(int row) const { return static_cast<unsigned>((y + row) * width + x); }

  INLINE void load_rows(float (&values)[ROWS], const Element* plane) const {
#pragma unroll
    for (int row = 0; row < ROWS; ++row) values[row] = has(row) ? load(plane + pixel(row)) : 1.f;
  }
};

// A group of the channels of one picture, from channel `first` on.
struct Group {
  const Element* planes;
  size_t plane;
  int first;

  INLINE Group(const Element* images, size_t plane, int first)
      : planes(images + (blockIdx.z * CHANNELS + first) * plane), plane(plane), first(first) {}

  INLINE bool has(int c) const { return CHANNELS % GROUP == 0 || first + c < CHANNELS; }
  INLINE float operator()(int c, unsigned pixel) const { return has(c) ? load(planes + c * plane + pixel) : 0.f; }
};

// What outputs need to know of a tap: a number, which the gathers explain, and a group of channels.
struct Record {
  float number, channels[3];

  INLINE Record(float number) : number(number), channels() {}

  // With the channels times `factor`, or with nothing in them.
  INLINE Record(float number, bool lends, const Group& light, unsigned pixel, float factor) : Record(number) {
#pragma unroll
    for (int i = 0; i < GROUP; ++i) {
      const float value = light(i, pixel) * factor;
      channels[i] = lends ? value : 0.f;
    }
  }
};

// Fill the tile with `record(pixel, coc)`; outside the image the CoC is NaN.
template <class MakeRecord>
INLINE void stage(Shared& shared, const Place& place, const Element* coc, MakeRecord record) {
  const int thread = threadIdx.y * TILE_WIDTH + threadIdx.x;
  const int left = blockIdx.x * TILE_WIDTH - RADIUS, top = blockIdx.y * WARPS * ROWS - RADIUS;
  __syncthreads();  // nobody still reads what was staged before
#pragma unroll 4
  for (int at = thread; at < TILE_ROWS * STRIDE; at += THREADS) {
    const int column = at % STRIDE, x = left + column, y = top + at / STRIDE;
    const bool inside = column < TILE_COLUMNS && 0 <= x && x < place.width && 0 <= y && y < place.height;
    const unsigned pixel = inside ? y * place.width + x : 0;  // loaded in any case: many loads at once, no branch
    const float c = load(coc + pixel);
    const Record r = record(pixel, inside ? c : __int_as_float(0x7fffffff));
    shared.tile[at] = make_float4(r.number, r.channels[0], r.channels[1], r.channels[2]);
  }
  if (DISK) {
    for (int at = thread; at < (RADIUS + 1) * (RADIUS + 1); at += THREADS) {
      const int u = at / (RADIUS + 1), v = at % (RADIUS + 1);
      shared.distances[at] = sqrtf(static_cast<float>(u * u + v * v));
    }
  }
  __syncthreads();
}

INLINE float channel(const float4& record, int c) { return c == 0 ? record.y : c == 1 ? record.z : record.w; }

INLINE float4 operator+(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// The thread's first row of taps, in the column of its outputs.
INLINE const float4* centre_column(const Shared& shared) {
  return shared.tile + threadIdx.y * ROWS * STRIDE + threadIdx.x + RADIUS;
}

// -------------------------------------------------------------------------------------------------------- the gathers

// Sums of weight * channels and of the weights. A record has the pixel's shape, and channels times its amplitude.
struct LentGather {
  float sums[ROWS][GROUP] = {}, weights[ROWS] = {};

  INLINE void run(const Shared& shared) {
#pragma unroll 1
    for (int u = -RADIUS; u <= RADIUS; ++u) {
      const float4* column = centre_column(shared) + u;
#pragma unroll
      for (int level = -RADIUS; level < ROWS + RADIUS; ++level) {  // the outputs are level with 0 to ROWS - 1
        const float4 tap = column[(RADIUS + level) * STRIDE];
        const int nearest = level < 0 ? -level : level < ROWS ? 0 : level - ROWS + 1;
        LentWeights lent(tap.x, shared.away(abs(u), nearest), nearest);
#pragma unroll
        for (int v = 0; v <= RADIUS; ++v) {
          if (v < nearest) continue;
          if (v > nearest) lent.step_out(shared.away(abs(u), v));
          if (level - v >= 0 && level - v < ROWS) add(level - v, lent, tap);
          if (v > 0 && level + v >= 0 && level + v < ROWS) add(level + v, lent, tap);
        }
      }
    }
#pragma unroll
    for (int row = 0; row < ROWS; ++row) weights[row] *= AMPLITUDE_SCALE;
  }

  INLINE void add(int row, const LentWeights& lent, const float4& tap) {
    weights[row] = fmaf(lent.weight, lent.amplitude(), weights[row]);
#pragma unroll
    for (int c = 0; c < GROUP; ++c) sums[row][c] = fmaf(lent.weight, channel(tap, c), sums[row][c]);
  }
};

// Sums of weight * channels, of weight * number, and of slope * (facets . channels + number_facet * number). A record's
// number is like one channel more: 1 where there is light, say. The compiler leaves out the sums that nobody reads.
struct OwnGather {
  OwnPsf psf[ROWS];
  float facets[ROWS][GROUP] = {}, number_facet[ROWS] = {};
  float sums[ROWS][GROUP] = {}, weights[ROWS] = {}, slopes[ROWS] = {};

  INLINE explicit OwnGather(const float (&coc)[ROWS]) {
#pragma unroll
    for (int row = 0; row < ROWS; ++row) psf[row] = OwnPsf(coc[row]);
  }

  INLINE void run(const Shared& shared) {
    const float4* nothing = shared.tile + threadIdx.y * ROWS * STRIDE + TILE_COLUMNS;
#pragma unroll 1
    for (int u = 0; u <= RADIUS; ++u) {
      const float4* left = centre_column(shared) - u;
      const float4* right = u == 0 ? nothing : centre_column(shared) + u;
      const auto both = [=](int row) { return left[row * STRIDE] + right[row * STRIDE]; };
      float4 above[ROWS], below[ROWS];  // the records v rows above and below each output
#pragma unroll
      for (int row = 0; row < ROWS; ++row) {
        above[row] = below[row] = both(RADIUS + row);
        add(row, shared.away(u, 0), below[row]);
      }
#pragma unroll
      for (int v = 1; v <= RADIUS; ++v) {
#pragma unroll
        for (int row = 0; row < ROWS - 1; ++row) {
          above[ROWS - 1 - row] = above[ROWS - 2 - row];
          below[row] = below[row + 1];
        }
        above[0] = both(RADIUS - v);
        below[ROWS - 1] = both(RADIUS + v + ROWS - 1);
#pragma unroll
        for (int row = 0; row < ROWS; ++row) add(row, shared.away(u, v), above[row] + below[row]);
      }
    }
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
      const float amplitude = psf[row].amplitude;
      weights[row] *= amplitude;
      slopes[row] *= amplitude;
#pragma unroll
      for (int c = 0; c < GROUP; ++c) sums[row][c] *= amplitude;
    }
  }

  INLINE void add(int row, float away, const float4& taps) {
    const float weight = psf[row].weight(away);
    float facet = number_facet[row] * taps.x;
#pragma unroll
    for (int c = 0; c < GROUP; ++c) {
      sums[row][c] = fmaf(weight, channel(taps, c), sums[row][c]);
      facet = fmaf(facets[row][c], channel(taps, c), facet);
    }
    weights[row] = fmaf(weight, taps.x, weights[row]);
    slopes[row] = fmaf(psf[row].slope(weight, away), facet, slopes[row]);
  }
};

// -------------------------------------------------------------------------------------------------------- the kernels

#if !BACKWARD

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) psf_forward(
    const Element* __restrict__ image, const Element* __restrict__ coc, int height, int width, Element* __restrict__ out
#if WEIGHT_SUM
    , float* __restrict__ weight_sum
#endif
) {
  __shared__ Shared shared;
  const Place place(height, width);
  const size_t plane = static_cast<size_t>(height) * width, picture = blockIdx.z * plane;
  coc += picture;
  float own_coc[ROWS];
  place.load_rows(own_coc, coc);

  for (int first = 0; first < CHANNELS; first += GROUP) {
    const Group sharp(image, plane, first);
    Element* output = out + (sharp.planes - image);
#if DESTINATION
    OwnGather gather(own_coc);
    stage(shared, place, coc, [=](unsigned pixel, float c) {
      return Record(c == c ? 1.f : 0.f, c == c, sharp, pixel, 1.f);
    });
#else
    LentGather gather;
    stage(shared, place, coc, [=](unsigned pixel, float c) {
      return Record(c > 1.f ? shape_of(c) : LENDS_NOTHING, c > 1.f, sharp, pixel, amplitude_of(c));
    });
#endif
    if (!place.has(0)) continue;
    gather.run(shared);
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
      if (!place.has(row)) break;
      const unsigned pixel = place.pixel(row);
      const float c = own_coc[row], inverse = 1.f / gather.weights[row];
      float values[GROUP];
#pragma unroll
      for (int i = 0; i < GROUP; ++i) values[i] = gather.sums[row][i] * inverse;
      if (!(c > 1.f)) {
#pragma unroll
        for (int i = 0; i < GROUP; ++i) values[i] = c <= 1.f ? sharp(i, pixel) : c;  // passed through, or NaN
      }
#pragma unroll
      for (int i = 0; i < GROUP; ++i) {
        if (sharp.has(i)) store(output + i * plane + pixel, values[i]);
      }
#if WEIGHT_SUM
      if (first == 0) weight_sum[picture + pixel] = c > 1.f ? gather.weights[row] : 0.f;
#endif
    }
  }
}

#else

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) psf_backward(
    const Element* __restrict__ grad, const Element* __restrict__ image, const Element* __restrict__ coc,
    const Element* __restrict__ out, const float* __restrict__ weight_sum, int height, int width,
    Element* __restrict__ grad_image, Element* __restrict__ grad_coc) {
  __shared__ Shared shared;
  const Place place(height, width);
  const size_t plane = static_cast<size_t>(height) * width, picture = blockIdx.z * plane;
  coc += picture;
  weight_sum += picture;
  grad_coc += picture;
  float own_coc[ROWS], slopes[ROWS] = {};
  place.load_rows(own_coc, coc);

  for (int first = 0; first < CHANNELS; first += GROUP) {
    const Group arriving(grad, plane, first), sharp(image, plane, first), blurred(out, plane, first);
    Element* output = grad_image + (sharp.planes - image);
    const auto store_grad_image = [=](const float (&lent)[ROWS][GROUP]) {
#pragma unroll
      for (int row = 0; row < ROWS; ++row) {
        if (!place.has(row)) break;
        const unsigned pixel = place.pixel(row);
        const float c = own_coc[row];
        float values[GROUP];
#pragma unroll
        for (int i = 0; i < GROUP; ++i) values[i] = lent[row][i];
        if (!(c > 1.f)) {
#pragma unroll
          for (int i = 0; i < GROUP; ++i) {
            const float passed = arriving(i, pixel);
            values[i] = c <= 1.f ? (DESTINATION ? passed + values[i] : passed) : 0.f;
          }
        }
#pragma unroll
        for (int i = 0; i < GROUP; ++i) {
          if (sharp.has(i)) store(output + i * plane + pixel, values[i]);
        }
      }
    };
    OwnGather gather(own_coc);

#if DESTINATION
    stage(shared, place, coc, [=](unsigned pixel, float c) {
      const float factor = amplitude_of(c) / weight_sum[pixel];
      return Record(c > 1.f ? shape_of(c) : LENDS_NOTHING, c > 1.f, arriving, pixel, factor);
    });
    if (place.has(0)) {
      LentGather lent;
      lent.run(shared);
      store_grad_image(lent.sums);
    }
    stage(shared, place, coc, [=](unsigned pixel, float c) {
      return Record(c == c ? 1.f : 0.f, c == c, sharp, pixel, 1.f);
    });
    if (!place.has(0)) continue;
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
      if (!(own_coc[row] > 1.f)) continue;
      const unsigned pixel = place.pixel(row);
      const Record own(0.f, true, arriving, pixel, 1.f / weight_sum[pixel]);
#pragma unroll
      for (int i = 0; i < GROUP; ++i) {
        gather.facets[row][i] = own.channels[i];
        gather.number_facet[row] = fmaf(-own.channels[i], blurred(i, pixel), gather.number_facet[row]);
      }
    }
    gather.run(shared);
#else
    stage(shared, place, coc, [=](unsigned pixel, float c) {
      Record record(0.f, c > 1.f, arriving, pixel, 1.f / weight_sum[pixel]);
#pragma unroll
      for (int i = 0; i < GROUP; ++i) record.number = fmaf(record.channels[i], blurred(i, pixel), record.number);
      record.number = c > 1.f ? record.number : 0.f;
      return record;
    });
    if (!place.has(0)) continue;
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
      gather.number_facet[row] = -1.f;
#pragma unroll
      for (int i = 0; i < GROUP; ++i) gather.facets[row][i] = own_coc[row] > 1.f ? sharp(i, place.pixel(row)) : 0.f;
    }
    gather.run(shared);
    store_grad_image(gather.sums);
#endif
#pragma unroll
    for (int row = 0; row < ROWS; ++row) slopes[row] += gather.slopes[row];
  }

#pragma unroll
  for (int row = 0; row < ROWS; ++row) {
    if (!place.has(row)) break;
    const float c = own_coc[row];
    store(grad_coc + place.pixel(row), c > 1.f && c <= WINDOW ? slopes[row] : 0.f);
  }
}

#endif
