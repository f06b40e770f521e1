// Vectors of float32 for the instruction set that this file is compiled for.
//
// Every operation rounds as written: the library is compiled without contraction, and `fma` rounds once wherever the
// instruction set has it. So a sample's value does not depend on its place in a vector or a block.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(GOMIN_AVX512) || defined(GOMIN_AVX2)
#include <immintrin.h>
#elif defined(GOMIN_NEON)
#include <arm_neon.h>
#endif

namespace {

#if defined(GOMIN_AVX512)

struct Vector {
  static constexpr int kLanes = 16;
  __m512 v;
};
inline Vector load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Vector a) { _mm512_storeu_ps(p, a.v); }
inline Vector all(float a) { return {_mm512_set1_ps(a)}; }
inline Vector operator+(Vector a, Vector b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vector operator-(Vector a, Vector b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vector operator*(Vector a, Vector b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vector operator/(Vector a, Vector b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vector fma(Vector a, Vector b, Vector c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }   // a·b + c
inline Vector fnma(Vector a, Vector b, Vector c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a·b
// of two values one of which is NaN, the second
inline Vector min(Vector a, Vector b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vector max(Vector a, Vector b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vector magnitude(Vector a) {
  return {_mm512_castsi512_ps(_mm512_and_epi32(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff)))};
}
inline bool any_greater(Vector a, float limit) {
  return _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(limit), _CMP_GT_OQ) != 0;
}
// `a`, positive, with the sign of `b`
inline Vector with_sign(Vector a, Vector b) {
  const __m512i sign = _mm512_and_epi32(_mm512_castps_si512(b.v), _mm512_set1_epi32(INT32_MIN));
  return {_mm512_castsi512_ps(_mm512_or_epi32(_mm512_castps_si512(a.v), sign))};
}
// 2^k for integers k = -126 … 127, from k + kRounder
inline Vector power_of_two(Vector shifted) {
  const __m512i k = _mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(k, _mm512_set1_epi32(0x3f800000)))};
}

#elif defined(GOMIN_AVX2)

struct Vector {
  static constexpr int kLanes = 8;
  __m256 v;
};
inline Vector load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void store(float* p, Vector a) { _mm256_storeu_ps(p, a.v); }
inline Vector all(float a) { return {_mm256_set1_ps(a)}; }
inline Vector operator+(Vector a, Vector b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vector operator-(Vector a, Vector b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vector operator*(Vector a, Vector b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vector operator/(Vector a, Vector b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vector fma(Vector a, Vector b, Vector c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vector fnma(Vector a, Vector b, Vector c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
inline Vector min(Vector a, Vector b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vector max(Vector a, Vector b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vector magnitude(Vector a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline bool any_greater(Vector a, float limit) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a.v, _mm256_set1_ps(limit), _CMP_GT_OQ)) != 0;
}
inline Vector with_sign(Vector a, Vector b) {
  return {_mm256_or_ps(a.v, _mm256_and_ps(b.v, _mm256_set1_ps(-0.0f)))};
}
inline Vector power_of_two(Vector shifted) {
  const __m256i k = _mm256_slli_epi32(_mm256_castps_si256(shifted.v), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(k, _mm256_set1_epi32(0x3f800000)))};
}

#elif defined(GOMIN_NEON)

struct Vector {
  static constexpr int kLanes = 4;
  float32x4_t v;
};
inline Vector load(const float* p) { return {vld1q_f32(p)}; }
inline void store(float* p, Vector a) { vst1q_f32(p, a.v); }
inline Vector all(float a) { return {vdupq_n_f32(a)}; }
inline Vector operator+(Vector a, Vector b) { return {vaddq_f32(a.v, b.v)}; }
inline Vector operator-(Vector a, Vector b) { return {vsubq_f32(a.v, b.v)}; }
inline Vector operator*(Vector a, Vector b) { return {vmulq_f32(a.v, b.v)}; }
inline Vector operator/(Vector a, Vector b) { return {vdivq_f32(a.v, b.v)}; }
inline Vector fma(Vector a, Vector b, Vector c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
inline Vector fnma(Vector a, Vector b, Vector c) { return {vfmsq_f32(c.v, a.v, b.v)}; }
inline Vector min(Vector a, Vector b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
inline Vector max(Vector a, Vector b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
inline Vector magnitude(Vector a) { return {vabsq_f32(a.v)}; }
inline bool any_greater(Vector a, float limit) { return vmaxvq_u32(vcgtq_f32(a.v, vdupq_n_f32(limit))) != 0; }
inline Vector with_sign(Vector a, Vector b) { return {vbslq_f32(vdupq_n_u32(0x80000000u), b.v, a.v)}; }
inline Vector power_of_two(Vector shifted) {
  const int32x4_t k = vshlq_n_s32(vreinterpretq_s32_f32(shifted.v), 23);
  return {vreinterpretq_f32_s32(vaddq_s32(k, vdupq_n_s32(0x3f800000)))};
}

#else

struct Vector {
  static constexpr int kLanes = 1;
  float v;
};
inline Vector load(const float* p) { return {*p}; }
inline void store(float* p, Vector a) { *p = a.v; }
inline Vector all(float a) { return {a}; }
inline Vector operator+(Vector a, Vector b) { return {a.v + b.v}; }
inline Vector operator-(Vector a, Vector b) { return {a.v - b.v}; }
inline Vector operator*(Vector a, Vector b) { return {a.v * b.v}; }
inline Vector operator/(Vector a, Vector b) { return {a.v / b.v}; }
// rounded twice: processors without the instruction compute it in software
inline Vector fma(Vector a, Vector b, Vector c) { return {a.v * b.v + c.v}; }
inline Vector fnma(Vector a, Vector b, Vector c) { return {c.v - a.v * b.v}; }
inline Vector min(Vector a, Vector b) { return {a.v < b.v ? a.v : b.v}; }
inline Vector max(Vector a, Vector b) { return {a.v > b.v ? a.v : b.v}; }
inline Vector magnitude(Vector a) { return {__builtin_fabsf(a.v)}; }
inline bool any_greater(Vector a, float limit) { return a.v > limit; }
inline Vector with_sign(Vector a, Vector b) { return {__builtin_copysignf(a.v, b.v)}; }
inline Vector power_of_two(Vector shifted) {
  uint32_t bits;
  memcpy(&bits, &shifted.v, sizeof bits);
  bits = (bits << 23) + 0x3f800000u;
  Vector power;
  memcpy(&power.v, &bits, sizeof bits);
  return power;
}

#endif

constexpr int kLanes = Vector::kLanes;

// Adding this to |k| < 2²² rounds k to an integer, whose low bits are then those of the sum.
constexpr float kRounder = 12582912.0f;  // 1.5·2²³

// The first `count` < kLanes values; the others are 0.
inline Vector load_part(const float* p, size_t count) {
  float values[kLanes] = {};
  memcpy(values, p, count * sizeof(float));
  return load(values);
}

inline void store_part(float* p, Vector a, size_t count) {
  float values[kLanes];
  store(values, a);
  memcpy(p, values, count * sizeof(float));
}

}  // namespace
