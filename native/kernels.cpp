// The kernels of one instruction set. build.py compiles this file once for each, with a macro that names it.
//
// No templates or inline functions of the standard library: the linker keeps one copy of those, perhaps the one with
// instructions that the processor does not have.

#include "kernels.h"

#include <math.h>
#include <string.h>

#include "vectors.h"

namespace {

using gomin::FilterRows;
using gomin::Interleaved;
using gomin::kBlock;
using gomin::kTaps;
using gomin::Row;
using gomin::RowFilter;
using gomin::Stage;

// Beyond this magnitude arguments are reduced by the C library.
constexpr float kLargest = 1e6f;

// v - k·π for the nearest integer k; |v| ≤ kLargest
inline Vector reduced(Vector v) {
#if defined(GOMIN_AVX512) || defined(GOMIN_AVX2) || defined(GOMIN_NEON)
  // Cody & Waite 1980: π as a sum of three float32. The first step is exact, because k has 19 bits and k·π is near v.
  const Vector k = fma(v, all(0.318309886f), all(kRounder)) - all(kRounder);
  const Vector first = fnma(k, all(0x1.921fb6p+1f), v);
  const Vector second = fnma(k, all(-0x1.777a5cp-24f), first);
  return fnma(k, all(-0x1.ee59dap-49f), second);
#else
  // k·π needs more than the 24 bits of a product without fma
  const float k = (v.v * 0.318309886f + kRounder) - kRounder;
  return {static_cast<float>(static_cast<double>(v.v) - static_cast<double>(k) * 3.14159265358979323846)};
#endif
}

// v + sin²v for |v| ≤ kLargest; sin²v has the period π. The polynomial is within 7e-9 of a sine on ±π/2, relatively.
inline Vector snake(Vector v) {
  const Vector r = reduced(v);
  const Vector square = r * r;
  Vector p = fma(square, all(2.60563138e-06f), all(-1.98095397e-04f));
  p = fma(p, square, all(8.33306555e-03f));
  p = fma(p, square, all(-1.66666597e-01f));
  const Vector sine = fma(r * square, p, r);
  return fma(sine, sine, v);
}

// `y` with the values of the lanes where |v| > kLargest from the C library, which is exact for large arguments
[[gnu::noinline]] Vector with_large(Vector v, Vector y) {
  float arguments[kLanes], values[kLanes];
  store(arguments, v);
  store(values, y);
  for (int i = 0; i < kLanes; ++i) {
    if (__builtin_fabsf(arguments[i]) > kLargest) {
      const double sine = sin(static_cast<double>(arguments[i]));
      values[i] = static_cast<float>(arguments[i] + sine * sine);
    }
  }
  return load(values);
}

inline Vector any_snake(Vector v) {
  const Vector y = snake(v);
  return any_greater(magnitude(v), kLargest) ? with_large(v, y) : y;
}

void snake_row(const float* u, float gain, float* y, size_t count) {
  const Vector factor = all(gain);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(y + i, any_snake(factor * load(u + i)));
  if (i < count) store_part(y + i, any_snake(factor * load_part(u + i, count - i)), count - i);
}

// e^x - 1 for -88 ≤ x ≤ 88, relatively accurate near 0. e^r - 1 is a polynomial on ±ln(2)/2, relatively within 2e-8.
inline Vector exponential_minus_one(Vector x) {
  const Vector shifted = fma(x, all(1.44269504f), all(kRounder));
  const Vector k = shifted - all(kRounder);
  const Vector r = fnma(k, all(-2.12194440e-4f), fnma(k, all(0.693359375f), x));  // ln(2) as a sum, k·0.693… exact
  Vector p = fma(r, all(1.39465521e-03f), all(8.36663786e-03f));
  p = fma(p, r, all(4.16662805e-02f));
  p = fma(p, r, all(1.66665420e-01f));
  p = fma(p, r, all(0.5f));
  p = fma(r * r, p, r);
  const Vector power = power_of_two(shifted);
  return fma(power, p, power - all(1.0f));
}

// tanh(f) = -t / (2 + t), t = e^(-2|f|) - 1, with the sign of f; sigmoid(g) = 1 / (2 + s), s = e^(-g) - 1
inline Vector gated(Vector gate, Vector filtered) {
  const Vector t = exponential_minus_one(max(all(-40.0f), all(-2.0f) * magnitude(filtered)));
  const Vector s = exponential_minus_one(min(all(87.0f), max(all(-40.0f), all(0.0f) - gate)));
  const Vector two = all(2.0f);
  return with_sign((all(0.0f) - t) / ((two + t) * (two + s)), filtered);
}

// y = sigmoid(gate)·tanh(filtered)
void gated_tanh_row(const float* gate, const float* filtered, float* y, size_t count) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(y + i, gated(load(gate + i), load(filtered + i)));
  if (i < count) {
    const size_t rest = count - i;
    store_part(y + i, gated(load_part(gate + i, rest), load_part(filtered + i, rest)), rest);
  }
}

constexpr ptrdiff_t greater(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

constexpr ptrdiff_t padded(ptrdiff_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

constexpr int floor_quotient(int a, int b) { return (a >= 0 ? a : a - b + 1) / b; }

// An anti-aliased Snake on rows of PHASES phases; PHASES = 1 is an ordinary row. With x(i) = 0 outside 0 … T-1, the
// taps u (up) and d (down), and f(v) = v + sin²v (see `PolyphaseSnake` in gomin_export/lowering/activations.py):
//     even(s) = f(Σ_q u(2q)·x(s + q - 3))      s = 0 … T
//     odd(s)  = f(Σ_q u(2q+1)·x(s + q - 2))    s = 0 … T-1
//     y(s)    = Σ_q d(2q+1)·even(s + q - 2) + Σ_q d(2q)·odd(s + q - 3)
// even and odd are 0 for all other s. Sample s is in column floor(s / PHASES) of phase s mod PHASES.
template <int PHASES>
class AntiAliasedSnake {
 public:
  static void compute(const Row& row, const float* up, const float* down, size_t first, size_t count) {
    AntiAliasedSnake block(row, up, down, static_cast<ptrdiff_t>(first), static_cast<ptrdiff_t>(count));
    block.read();
    block.filter_up();
    block.clear_outside();
    block.filter_down();
  }

 private:
  static constexpr int kReach = (3 + PHASES - 1) / PHASES;  // columns that a filter reaches to either side
  static constexpr int kColumns = static_cast<int>(kBlock) / PHASES;
  static constexpr int kPadded = kColumns + 4 * kReach + 2 * kLanes;

  AntiAliasedSnake(const Row& row, const float* up, const float* down, ptrdiff_t first, ptrdiff_t count)
      : row_(row),
        up_(up),
        down_(down),
        first_(first),
        count_(count),
        first_out_(static_cast<ptrdiff_t>(row.first_out)) {}

  // x_[p][c] is column first - 2·kReach + c
  void read() {
    const ptrdiff_t columns = static_cast<ptrdiff_t>(row_.columns);
    const ptrdiff_t origin = first_ - 2 * kReach;
    const ptrdiff_t begin = greater(origin, 0);
    const ptrdiff_t end = -greater(-(first_ + count_ + 2 * kReach), -columns);
    for (int p = 0; p < PHASES; ++p) {
      const float* source = row_.input + static_cast<size_t>(p) * row_.stride;
      for (ptrdiff_t c = 0; c < begin - origin; ++c) x_[p][c] = 0.0f;
      memcpy(x_[p] + (begin - origin), source + begin, static_cast<size_t>(end - begin) * sizeof(float));
      for (ptrdiff_t c = end - origin; c < kPadded; ++c) x_[p][c] = 0.0f;
    }
  }

  // Σ over every second tap, from `tap`, of the samples from `offset` before or after sample ROW of each column
  template <int ROW>
  static inline Vector filtered(const float (*samples)[kPadded], const Vector* taps, int tap, int offset,
                                ptrdiff_t column) {
    Vector sum = all(0.0f);
    for (int q = 0; q < kTaps / 2; ++q) {
      const int sample = ROW + offset + q;
      const int phase = sample - PHASES * floor_quotient(sample, PHASES);
      const Vector value = load(samples[phase] + column + floor_quotient(sample, PHASES));
      sum = fma(taps[2 * q + tap], value, sum);
    }
    return sum;
  }

  template <int ROW>
  inline Vector filter_up_row(const Vector* taps, ptrdiff_t c, Vector largest) {
    const Vector even = filtered<ROW>(x_, taps, 0, -3, c + kReach);
    const Vector odd = filtered<ROW>(x_, taps, 1, -2, c + kReach);
    store(even_[ROW] + c, snake(even));
    store(odd_[ROW] + c, snake(odd));
    largest = max(magnitude(odd), max(magnitude(even), largest));
    if constexpr (ROW + 1 < PHASES) return filter_up_row<ROW + 1>(taps, c, largest);
    return largest;
  }

  template <int ROW>
  void replace_large(const Vector* taps, ptrdiff_t c) {
    const Vector even = filtered<ROW>(x_, taps, 0, -3, c + kReach);
    const Vector odd = filtered<ROW>(x_, taps, 1, -2, c + kReach);
    store(even_[ROW] + c, with_large(even, load(even_[ROW] + c)));
    store(odd_[ROW] + c, with_large(odd, load(odd_[ROW] + c)));
    if constexpr (ROW + 1 < PHASES) replace_large<ROW + 1>(taps, c);
  }

  // even_[p][c] and odd_[p][c] are column first - kReach + c
  void filter_up() {
    Vector taps[kTaps];
    for (int i = 0; i < kTaps; ++i) taps[i] = all(up_[i]);
    const ptrdiff_t columns = padded(count_) + 2 * kReach;
    Vector largest = all(0.0f);
    for (ptrdiff_t c = 0; c < columns; c += kLanes) largest = filter_up_row<0>(taps, c, largest);
    if (!any_greater(largest, kLargest)) return;
    for (ptrdiff_t c = 0; c < columns; c += kLanes) replace_large<0>(taps, c);
  }

  void clear_outside() {
    const ptrdiff_t columns = static_cast<ptrdiff_t>(row_.columns);
    const ptrdiff_t origin = first_ - kReach;
    for (ptrdiff_t c = 0; origin + c < 0; ++c) {
      for (int p = 0; p < PHASES; ++p) even_[p][c] = odd_[p][c] = 0.0f;
    }
    for (ptrdiff_t c = greater(columns - origin, 0); c < count_ + 2 * kReach; ++c) {
      for (int p = 0; p < PHASES; ++p) {
        odd_[p][c] = 0.0f;
        if (PHASES * (origin + c) + p != PHASES * columns) even_[p][c] = 0.0f;
      }
    }
  }

  template <int ROW>
  inline void filter_down_row(const Vector* taps, ptrdiff_t c) {
    const Vector y = filtered<ROW>(even_, taps, 1, -2, c + kReach) + filtered<ROW>(odd_, taps, 0, -3, c + kReach);
    float* target = row_.output + static_cast<size_t>(ROW) * row_.stride_out + (first_ - first_out_) + c;
    if (c + kLanes <= count_) {
      store(target, y);
    } else {
      store_part(target, y, static_cast<size_t>(count_ - c));
    }
    if constexpr (ROW + 1 < PHASES) filter_down_row<ROW + 1>(taps, c);
  }

  void filter_down() {
    Vector taps[kTaps];
    for (int i = 0; i < kTaps; ++i) taps[i] = all(down_[i]);
    for (ptrdiff_t c = 0; c < count_; c += kLanes) filter_down_row<0>(taps, c);
  }

  const Row& row_;
  const float* up_;
  const float* down_;
  const ptrdiff_t first_, count_, first_out_;
  float x_[PHASES][kPadded];
  float even_[PHASES][kPadded];
  float odd_[PHASES][kPadded];
};

constexpr int kFilterPadded = static_cast<int>(gomin::kFilterBlock) + gomin::kMaxReach + kLanes;
constexpr int kUnrolled = 4;  // vectors of columns computed together, so that a coefficient is loaded once

// one row of y in COUNT vectors of columns
template <int COUNT>
inline void filter_row(const RowFilter& filter, int begin, int end, const float (*x)[kFilterPadded], ptrdiff_t column,
                       Vector* sums) {
  for (int i = 0; i < COUNT; ++i) sums[i] = all(0.0f);
  for (int e = begin; e < end; ++e) {
    const auto& entry = filter.entries[e];
    const float* source = x[entry.row] + column + (entry.shift - filter.first);
    const Vector coefficient = all(entry.coefficient);
    for (int i = 0; i < COUNT; ++i) sums[i] = fma(coefficient, load(source + i * kLanes), sums[i]);
  }
}

inline void finish(const RowFilter& filter, const FilterRows& rows, size_t place, Vector sum, size_t count) {
  if (filter.snake) sum = any_snake(sum);
  if (count >= static_cast<size_t>(kLanes)) {
    store(rows.y + place, rows.summand != nullptr ? load(rows.summand + place) + sum : sum);
  } else {
    store_part(rows.y + place, rows.summand != nullptr ? load_part(rows.summand + place, count) + sum : sum, count);
  }
}

void row_filter(const RowFilter& filter, const FilterRows& rows, size_t first, size_t count) {
  // x[r][c] is column first + filter.first + c
  float x[gomin::kMaxRows][kFilterPadded];
  const ptrdiff_t origin = static_cast<ptrdiff_t>(first) + filter.first;
  const ptrdiff_t needed = padded(static_cast<ptrdiff_t>(count)) + (filter.last - filter.first);
  const ptrdiff_t columns = static_cast<ptrdiff_t>(rows.columns_in);
  const ptrdiff_t begin = greater(0, -origin);  // behind `end` if all values are zero
  const ptrdiff_t end = -greater(-needed, origin - columns);
  for (int r = 0; r < filter.rows_in; ++r) {
    const float* source = rows.x + static_cast<size_t>(r) * rows.stride_in;
    if (end <= begin) {
      memset(x[r], 0, static_cast<size_t>(needed) * sizeof(float));
      continue;
    }
    memset(x[r], 0, static_cast<size_t>(begin) * sizeof(float));
    const ptrdiff_t place = origin + begin - static_cast<ptrdiff_t>(rows.first_in);
    memcpy(x[r] + begin, source + place, static_cast<size_t>(end - begin) * sizeof(float));
    memset(x[r] + end, 0, static_cast<size_t>(needed - end) * sizeof(float));
  }
  for (int r = 0; r < filter.rows_out; ++r) {
    const int entry = r > 0 ? filter.ends[r - 1] : 0;
    const size_t place = static_cast<size_t>(r) * rows.stride_out + (first - rows.first_out);
    Vector sums[kUnrolled];
    size_t c = 0;
    for (; c + kUnrolled * kLanes <= count; c += kUnrolled * kLanes) {
      filter_row<kUnrolled>(filter, entry, filter.ends[r], x, static_cast<ptrdiff_t>(c), sums);
      for (int i = 0; i < kUnrolled; ++i) finish(filter, rows, place + c + i * kLanes, sums[i], kLanes);
    }
    for (; c < count; c += kLanes) {
      filter_row<1>(filter, entry, filter.ends[r], x, static_cast<ptrdiff_t>(c), sums);
      finish(filter, rows, place + c, sums[0], count - c);
    }
  }
}

void chain(const Stage& stage, const RowFilter& filter, const FilterRows& rows, size_t first, size_t count) {
  // the columns that the filter reads and that the stage has
  const ptrdiff_t columns = static_cast<ptrdiff_t>(stage.columns);
  const ptrdiff_t begin = greater(0, static_cast<ptrdiff_t>(first) + filter.first);
  const ptrdiff_t end = -greater(-columns, -(static_cast<ptrdiff_t>(first + count) + filter.last));
  float made[gomin::kMaxRows * kFilterPadded];
  FilterRows last = rows;
  last.x = made;
  last.columns_in = static_cast<size_t>(greater(end, 0));  // what is beyond is read by unused lanes alone
  last.stride_in = kFilterPadded;
  last.first_in = static_cast<size_t>(begin);
  if (begin < end) {
    const size_t from = static_cast<size_t>(begin), needed = static_cast<size_t>(end - begin);
    if (stage.filter == nullptr) {
      const Row row{rows.x, made, stage.columns, rows.stride_in, kFilterPadded, from};
      AntiAliasedSnake<4>::compute(row, stage.up, stage.down, from, needed);
    } else {
      const FilterRows read{rows.x, nullptr, made, rows.columns_in, rows.stride_in, kFilterPadded, rows.first_in, from};
      row_filter(*stage.filter, read, from, needed);
    }
  }
  row_filter(filter, last, first, count);
}

// PHASES = 0: any number of them
template <int PHASES>
void put_in_order(const Interleaved& row, size_t column, size_t count, float* samples) {
  const size_t phases = PHASES > 0 ? static_cast<size_t>(PHASES) : row.phases;
  const float* x = row.x + column;
  for (size_t j = 0; j < count; ++j) {
    for (size_t p = 0; p < phases; ++p) samples[phases * j + p] = x[p * row.stride + j];
  }
}

void interleave(const Interleaved& row, size_t first, size_t count) {
  float samples[kBlock + 2 * gomin::kMostPhases];
  const size_t column = (first + row.trim) / row.phases, skipped = (first + row.trim) % row.phases;
  const size_t columns = (skipped + count + row.phases - 1) / row.phases;
  switch (row.phases) {
    case 2: put_in_order<2>(row, column, columns, samples); break;
    case 4: put_in_order<4>(row, column, columns, samples); break;
    default: put_in_order<0>(row, column, columns, samples); break;
  }
  const float* x = samples + skipped;
  float* y = row.y + first;
  if (row.scale == nullptr) {
    memcpy(y, x, count * sizeof(float));
    return;
  }
  const float *scale = row.scale + first, *shift = row.shift + first;
  const Vector one = all(1.0f);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(y + i, fma(one + load(scale + i), load(x + i), load(shift + i)));
  if (i < count) {
    const size_t rest = count - i;
    const Vector factor = one + load_part(scale + i, rest);
    store_part(y + i, fma(factor, load_part(x + i, rest), load_part(shift + i, rest)), rest);
  }
}

}  // namespace

#include "residual.h"

namespace gomin {

#if defined(GOMIN_AVX512)
const Kernels kAvx512 = {"avx512",
#elif defined(GOMIN_AVX2)
const Kernels kAvx2 = {"avx2",
#elif defined(GOMIN_NEON)
const Kernels kNeon = {"neon",
#else
const Kernels kScalar = {"scalar",
#endif
                         snake_row, AntiAliasedSnake<1>::compute, row_filter, chain, interleave,
                         residual_block, modulation_block};

}  // namespace gomin
