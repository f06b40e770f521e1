// The arithmetic of the operators, compiled once for each instruction set.
#pragma once

#include <cstddef>

namespace gomin {

constexpr int kTaps = 12;     // of each anti-aliasing filter
constexpr size_t kBlock = 1024;  // samples of a row that one call of a kernel computes at most

// A row of T = phases·columns samples; one phase, or four in a chain. Sample phases·j + p is at input[p·stride + j].
struct Row {
  const float* input;
  float* output;
  size_t columns;
  size_t stride;
  // the same for the output: sample phases·j + p is at output[p·stride_out + j - first_out]
  size_t stride_out;
  size_t first_out;
};

// A linear filter over rows and neighbouring columns: row r of y at column j is the sum of
// coefficient·x[row][j + shift] over the entries ends[r - 1] … ends[r] - 1, with x = 0 outside of its columns.
constexpr int kMaxRows = 16;
constexpr int kMaxEntries = 256;
constexpr int kMaxReach = 32;  // columns
constexpr size_t kFilterBlock = 256;  // columns that one call of a kernel computes at most

struct RowFilter {
  int rows_in = 0, rows_out = 0;
  int first = 0, last = 0;  // smallest and largest shift
  int ends[kMaxRows] = {};
  struct {
    int row, shift;
    float coefficient;
  } entries[kMaxEntries];
  bool snake = false;  // apply v + sin²v to the result
};

// Row r of x is at x + r·stride_in; rows of y and summand, which may be null, are stride_out apart. The first value of
// x is column first_in, that of y and summand column first_out.
struct FilterRows {
  const float* x;
  const float* summand;
  float* y;
  size_t columns_in, stride_in, stride_out;
  size_t first_in = 0, first_out = 0;
};

// What a filter reads in place of x: an anti-aliased Snake of x on four phases, or a filter of x, which has `columns`.
constexpr size_t kChainBlock = kFilterBlock - kMaxReach;
struct Stage {
  const float* up;
  const float* down;
  const RowFilter* filter;  // null: the Snake
  size_t columns;
};

constexpr size_t kMostPhases = 64;
// A row whose samples are in phases: sample phases·j + p at x[p·stride + j]. y is the samples from `trim` on, and
// becomes (1 + scale)·y + shift if these are not null.
struct Interleaved {
  const float* x;
  const float* scale;
  const float* shift;
  float* y;
  size_t phases, stride, trim;
};

constexpr size_t kResidualColumns = 64;  // of one block of a residual layer; four samples each
constexpr size_t kRowGroup = 6;          // rows of a matrix product that are computed together

// One residual layer of the denoiser, of R channels. The rows of weights are in groups of kRowGroup, the last one
// filled up with 0; a group of the first half of the outputs (gate, residual) is followed by that of the second
// (filter, skip).
struct ResidualLayer {
  const float* dilated;      // (6 points, groups, 2, R, kRowGroup)
  const float* bias;         // (groups, 2, kRowGroup), of the convolution and of the conditioner's projection
  const float* projection;   // (groups, 2, bands, kRowGroup)
  const float* output;       // (groups, 2, R, kRowGroup)
  const float* output_bias;  // (groups, 2, kRowGroup)
  size_t channels, bands, samples;
  size_t dilation;  // a power of 2

  // inlined everywhere: a copy that the linker keeps could have instructions that the processor does not have
  [[gnu::always_inline]] size_t row_groups() const { return (channels + kRowGroup - 1) / kRowGroup; }
  size_t blocks() const {
    const size_t rest = samples % (4 * dilation);
    const size_t columns = samples / (4 * dilation) * dilation + (rest < dilation ? rest : dilation);
    return (columns + kResidualColumns - 1) / kResidualColumns;
  }
  size_t scratch() const { return (10 * channels + 4 * bands) * kResidualColumns; }  // floats
};

// Of one item: state and output (2R, samples), step (R,), conditioner (bands, samples).
struct ResidualBlock {
  const float* state;
  const float* step;
  const float* conditioner;
  float* output;
  size_t first_column;
  float* scratch;
};

struct Kernels {
  const char* name;
  // y = v + sin²v, v = gain·u
  void (*snake)(const float* u, float gain, float* y, size_t count);
  // Columns first … first + count - 1 of a row, count ≤ kBlock. up, down: kTaps values each.
  void (*anti_aliased_snake)(const Row& row, const float* up, const float* down, size_t first, size_t count);
  // columns first … first + count - 1 of all rows of y; count ≤ kFilterBlock
  void (*row_filter)(const RowFilter& filter, const FilterRows& rows, size_t first, size_t count);
  // the same of the values that `stage` makes from x; count ≤ kChainBlock
  void (*chain)(const Stage& stage, const RowFilter& filter, const FilterRows& rows, size_t first, size_t count);
  // samples first … first + count - 1 of y; count ≤ kBlock
  void (*interleave)(const Interleaved& row, size_t first, size_t count);
  void (*residual_block)(const ResidualLayer& layer, const ResidualBlock& block);
  // FiLM: x = scale·x + shift, the two halves of the projection, of a layer that has nothing but the projection and
  // its bias; its dilation is kResidualColumns. The output may be the state.
  void (*modulation_block)(const ResidualLayer& layer, const ResidualBlock& block);
};

extern const Kernels kScalar;
#if defined(__x86_64__)
extern const Kernels kAvx2, kAvx512;
#elif defined(__aarch64__)
extern const Kernels kNeon;
#endif

}  // namespace gomin
