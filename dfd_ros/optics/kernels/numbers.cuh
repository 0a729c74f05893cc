// What images are made of in memory, as floats: `Element`, `load` and `store`. Given by #define:
//   ELEMENT   1 float, 2 half, 3 bfloat16
// Without any header, since NVRTC comes with none.

#if ELEMENT == 1

typedef float Element;
INLINE float load(const Element* at) { return *at; }
INLINE void store(Element* at, float value) { *at = value; }

#elif ELEMENT == 2

typedef unsigned short Element;
#ifdef __CUDACC__  // without cuda_fp16.h: NVRTC comes without headers
INLINE float load(const Element* at) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(*at));
  return value;
}
INLINE void store(Element* at, float value) {
  Element bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  *at = bits;
}
#else
INLINE float load(const Element* at) { return *reinterpret_cast<const _Float16*>(at); }
INLINE void store(Element* at, float value) { *reinterpret_cast<_Float16*>(at) = static_cast<_Float16>(value); }
#endif

#else

typedef unsigned short Element;  // the upper half of a float
INLINE float load(const Element* at) { return __uint_as_float(static_cast<unsigned>(*at) << 16); }
INLINE void store(Element* at, float value) {
  const unsigned bits = __float_as_uint(value), to_nearest_even = 0x7fff + (bits >> 16 & 1);
  *at = static_cast<Element>(value == value ? (bits + to_nearest_even) >> 16 : 0x7fff);
}

#endif
