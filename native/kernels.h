// The arithmetic of the operators, compiled once for each instruction set.
#pragma once

#include <cstddef>

namespace gomin {

constexpr int kTaps = 12;     // of each anti-aliasing filter
constexpr size_t kBlock = 1024;  // samples of a row that one call of a kernel computes at most

// A row of T = phases·columns samples. Sample phases·j + p is at data[p·stride + j].
struct Row {
  const float* input;
  float* output;
  size_t columns;
  size_t stride;
};

struct Kernels {
  const char* name;
  // y = v + sin²v, v = gain·u
  void (*snake)(const float* u, float gain, float* y, size_t count);
  // sigmoid(gate)·tanh(filtered)
  void (*gated_tanh)(const float* gate, const float* filtered, float* y, size_t count);
  // Columns first … first + count - 1 of a row, phases·count ≤ kBlock. up, down: kTaps values each.
  void (*anti_aliased_snake)(const Row& row, const float* up, const float* down, size_t first, size_t count);
  // the same for rows in four phases
  void (*phased_anti_aliased_snake)(const Row& row, const float* up, const float* down, size_t first, size_t count);
};

extern const Kernels kScalar;
#if defined(__x86_64__)
extern const Kernels kAvx2, kAvx512;
#elif defined(__aarch64__)
extern const Kernels kNeon;
#endif

}  // namespace gomin
