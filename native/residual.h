// One residual layer of the denoiser, or one FiLM layer, for kernels.cpp.
//
// The dilated convolution of three taps is computed by minimal filtering, F(4, 3) along the dilation: four outputs
// d samples apart take six multiplications instead of twelve (Winograd 1980; Lavin & Gray 2016). The matrices are those
// of WinogradFilter.of(4, 3) in gomin_export/lowering/winograd.py. Nothing between the input and the output of a layer
// leaves the processor's cache: a block of kResidualColumns columns of four samples goes through the whole layer.
//
// Column c has the samples t, t + d, t + 2d and t + 3d with t = 4d·floor(c / d) + c mod d; these are its phases 0 … 3.

namespace {

using gomin::kResidualColumns;
using gomin::kRowGroup;
using gomin::ResidualBlock;
using gomin::ResidualLayer;

constexpr int kPhases = 4;
constexpr int kPoints = 6;
constexpr size_t kColumns = kResidualColumns;
constexpr size_t kSpan = kPhases * kColumns;
constexpr size_t kGroup = kRowGroup;
// Vectors of a row that one step of a product computes: as many accumulators as there are registers.
#if defined(GOMIN_AVX2)
constexpr size_t kVectors = 2;
#else
constexpr size_t kVectors = 4;
#endif

// rows (kGroup, kColumns) = [rows +] weights (depth, kGroup)ᵀ · columns (depth, kColumns)
template <bool ADD>
void product(const float* weights, const float* columns, size_t depth, float* rows) {
  constexpr size_t kStep = kVectors * kLanes;
  for (size_t c = 0; c < kColumns; c += kStep) {
    Vector sums[kGroup][kVectors];
    for (size_t r = 0; r < kGroup; ++r) {
      for (size_t v = 0; v < kVectors; ++v) {
        sums[r][v] = ADD ? load(rows + r * kColumns + c + v * kLanes) : all(0.0f);
      }
    }
    const float* column = columns + c;
    const float* weight = weights;
    for (size_t k = 0; k < depth; ++k, column += kColumns, weight += kGroup) {
      Vector values[kVectors];
      for (size_t v = 0; v < kVectors; ++v) values[v] = load(column + v * kLanes);
      for (size_t r = 0; r < kGroup; ++r) {
        const Vector factor = all(weight[r]);
        for (size_t v = 0; v < kVectors; ++v) sums[r][v] = fma(factor, values[v], sums[r][v]);
      }
    }
    for (size_t r = 0; r < kGroup; ++r) {
      for (size_t v = 0; v < kVectors; ++v) store(rows + r * kColumns + c + v * kLanes, sums[r][v]);
    }
  }
}

// copy[i] = samples[first + i] + offset, 0 outside 0 … count-1
inline void copy_clipped(const float* samples, ptrdiff_t count, ptrdiff_t first, float offset, float* copy,
                         ptrdiff_t length) {
  const ptrdiff_t begin = greater(0, -first);
  const ptrdiff_t end = -greater(-length, first - count);
  if (begin > 0 || end < length) {
    for (ptrdiff_t i = 0; i < length; ++i) copy[i] = i < begin || i >= end ? 0.0f : samples[first + i] + offset;
    return;
  }
  for (ptrdiff_t i = 0; i < length; ++i) copy[i] = samples[first + i] + offset;
}

// phases[i][c] = span[4d·floor(c / d) + c mod d + i·d]
template <size_t DILATION>
inline void split(const float* span, float (*phases)[kColumns], size_t count) {
  for (size_t i = 0; i < count; ++i) {
    for (size_t q = 0; q < kColumns / DILATION; ++q) {
      for (size_t p = 0; p < DILATION; ++p) phases[i][q * DILATION + p] = span[(4 * q + i) * DILATION + p];
    }
  }
}

// the inverse, of four phases
template <size_t DILATION>
inline void merge(const float (*phases)[kColumns], float* span) {
  for (size_t q = 0; q < kColumns / DILATION; ++q) {
    for (size_t i = 0; i < kPhases; ++i) {
      for (size_t p = 0; p < DILATION; ++p) span[(4 * q + i) * DILATION + p] = phases[i][q * DILATION + p];
    }
  }
}

inline void split_by(size_t dilation, const float* span, float (*phases)[kColumns], size_t count) {
  switch (dilation) {
    case 1: return split<1>(span, phases, count);
    case 2: return split<2>(span, phases, count);
    case 4: return split<4>(span, phases, count);
    case 8: return split<8>(span, phases, count);
    case 16: return split<16>(span, phases, count);
    default: return split<32>(span, phases, count);
  }
}

inline void merge_by(size_t dilation, const float (*phases)[kColumns], float* span) {
  switch (dilation) {
    case 1: return merge<1>(phases, span);
    case 2: return merge<2>(phases, span);
    case 4: return merge<4>(phases, span);
    case 8: return merge<8>(phases, span);
    case 16: return merge<16>(phases, span);
    default: return merge<32>(phases, span);
  }
}

class Residual {
 public:
  Residual(const ResidualLayer& layer, const ResidualBlock& block)
      : layer_(layer),
        block_(block),
        samples_(static_cast<ptrdiff_t>(layer.samples)),
        dilation_(static_cast<ptrdiff_t>(layer.dilation)),
        is_run_(layer.dilation >= kColumns),
        points_(block.scratch),
        conditioner_(points_ + kPoints * layer.channels * kColumns),
        gated_(conditioner_ + kPhases * layer.bands * kColumns) {
    const size_t column = block.first_column;
    first_ = static_cast<ptrdiff_t>(4 * layer.dilation * (column / layer.dilation) + column % layer.dilation);
  }

  void compute() {
    if (first_ >= samples_) return;  // the columns after the last sample
    read_signal();
    read_conditioner();
    for (size_t group = 0; group * kGroup < layer_.channels; ++group) gate(group);
    for (size_t group = 0; group * kGroup < layer_.channels; ++group) project(group);
  }

  void modulate() {
    read_conditioner();
    for (size_t group = 0; group * kGroup < layer_.channels; ++group) modulate(group);
    if (block_.output == block_.state) return;
    for (size_t row = layer_.channels; row < 2 * layer_.channels; ++row) {
      const ptrdiff_t count = -greater(-static_cast<ptrdiff_t>(kSpan), first_ - samples_);
      const size_t offset = row * layer_.samples + static_cast<size_t>(first_);
      memcpy(block_.output + offset, block_.state + offset, static_cast<size_t>(count) * sizeof(float));
    }
  }

 private:
  using Phases = float[kPhases][kGroup][kColumns];

  size_t panel(size_t depth) const { return depth * kGroup; }

  // Phases -reach … 3 + reach of a row in this block, with `offset` added inside the signal.
  void read(const float* row, float offset, ptrdiff_t reach, float (*phases)[kColumns]) const {
    const size_t count = static_cast<size_t>(kPhases + 2 * reach);
    if (is_run_) {
      for (size_t i = 0; i < count; ++i) {
        copy_clipped(row, samples_, first_ + (static_cast<ptrdiff_t>(i) - reach) * dilation_, offset, phases[i],
                     static_cast<ptrdiff_t>(kColumns));
      }
    } else {
      float span[kSpan + 2 * kColumns];
      copy_clipped(row, samples_, first_ - reach * dilation_, offset, span,
                   static_cast<ptrdiff_t>(kSpan) + 2 * reach * dilation_);
      split_by(layer_.dilation, span, phases, count);
    }
  }

  void read_signal() const {
    float x[kPoints][kColumns];
    for (size_t channel = 0; channel < layer_.channels; ++channel) {
      read(block_.state + channel * layer_.samples, block_.step[channel], 1, x);
      float* target = points_ + channel * kColumns;
      const size_t stride = layer_.channels * kColumns;
      for (size_t c = 0; c < kColumns; c += kLanes) {
        const Vector x0 = load(x[0] + c), x1 = load(x[1] + c), x2 = load(x[2] + c);
        const Vector x3 = load(x[3] + c), x4 = load(x[4] + c), x5 = load(x[5] + c);
        const Vector four = all(4.0f), five = all(5.0f), two = all(2.0f);
        const Vector even = fnma(four, x2, x4), odd = fnma(four, x1, x3);
        const Vector outer = x4 - x2, inner = two * (x3 - x1);
        store(target + c, fma(four, x0, fnma(five, x2, x4)));
        store(target + stride + c, even + odd);
        store(target + 2 * stride + c, even - odd);
        store(target + 3 * stride + c, outer + inner);
        store(target + 4 * stride + c, outer - inner);
        store(target + 5 * stride + c, fma(four, x1, fnma(five, x3, x5)));
      }
    }
  }

  void read_conditioner() const {
    float phases[kPhases][kColumns];
    for (size_t band = 0; band < layer_.bands; ++band) {
      read(block_.conditioner + band * layer_.samples, 0.0f, 0, phases);
      for (size_t i = 0; i < kPhases; ++i) {
        memcpy(conditioner_ + (i * layer_.bands + band) * kColumns, phases[i], sizeof phases[i]);
      }
    }
  }

  // One half of the convolution, of a group of rows: their sum with the conditioner's projection.
  void convolve(size_t group, size_t half, Phases sums) const {
    const size_t groups = layer_.row_groups();
    const size_t row = 2 * group + half;
    float products[kPoints][kGroup][kColumns];
    for (size_t k = 0; k < kPoints; ++k) {
      product<false>(layer_.dilated + (2 * groups * k + row) * panel(layer_.channels),
                     points_ + k * layer_.channels * kColumns, layer_.channels, products[k][0]);
    }
    for (size_t r = 0; r < kGroup; ++r) {
      const Vector bias = all(layer_.bias[row * kGroup + r]);
      for (size_t c = 0; c < kColumns; c += kLanes) {
        const Vector m1 = load(products[1][r] + c), m2 = load(products[2][r] + c);
        const Vector m3 = load(products[3][r] + c), m4 = load(products[4][r] + c);
        const Vector even = m1 + m2, odd = m1 - m2, wide = m3 + m4, slope = m3 - m4;
        store(sums[0][r] + c, load(products[0][r] + c) + even + wide + bias);
        store(sums[1][r] + c, fma(all(2.0f), slope, odd) + bias);
        store(sums[2][r] + c, fma(all(4.0f), wide, even) + bias);
        store(sums[3][r] + c, fma(all(8.0f), slope, odd) + load(products[5][r] + c) + bias);
      }
    }
    for (size_t i = 0; i < kPhases; ++i) {
      product<true>(layer_.projection + row * panel(layer_.bands), conditioner_ + i * layer_.bands * kColumns,
                    layer_.bands, sums[i][0]);
    }
  }

  void gate(size_t group) const {
    Phases gates, filtered;
    convolve(group, 0, gates);
    convolve(group, 1, filtered);
    const size_t rows = rows_of(group);
    for (size_t i = 0; i < kPhases; ++i) {
      gated_tanh_row(gates[i][0], filtered[i][0], gated_ + (i * layer_.channels + group * kGroup) * kColumns,
                     rows * kColumns);
    }
  }

  void project(size_t group) const {
    for (size_t half = 0; half < 2; ++half) {
      const size_t row = 2 * group + half;
      Phases sums;
      for (size_t i = 0; i < kPhases; ++i) {
        product<false>(layer_.output + row * panel(layer_.channels), gated_ + i * layer_.channels * kColumns,
                       layer_.channels, sums[i][0]);
      }
      for (size_t r = 0; r < rows_of(group); ++r) {
        float values[kPhases][kColumns];
        for (size_t i = 0; i < kPhases; ++i) memcpy(values[i], sums[i][r], sizeof values[i]);
        const size_t offset = (half * layer_.channels + group * kGroup + r) * layer_.samples;
        write(block_.state + offset, layer_.output_bias[row * kGroup + r], values, block_.output + offset);
      }
    }
  }

  void write(const float* before, float bias, const float (*phases)[kColumns], float* after) const {
    if (is_run_) {
      for (ptrdiff_t i = 0; i < kPhases; ++i) add(before, bias, phases[i], first_ + i * dilation_, kColumns, after);
    } else {
      float span[kSpan];
      merge_by(layer_.dilation, phases, span);
      add(before, bias, span, first_, kSpan, after);
    }
  }

  void add(const float* before, float bias, const float* values, ptrdiff_t first, size_t count, float* after) const {
    const ptrdiff_t end = -greater(-static_cast<ptrdiff_t>(count), first - samples_);
    for (ptrdiff_t i = 0; i < end; ++i) after[first + i] = before[first + i] + (values[i] + bias);
  }

  // x = scale·x + shift for a group of channels
  void modulate(size_t group) const {
    const size_t row = 2 * group;
    for (size_t i = 0; i < kPhases; ++i) {
      float scale[kGroup][kColumns], shift[kGroup][kColumns];
      const float* columns = conditioner_ + i * layer_.bands * kColumns;
      product<false>(layer_.projection + row * panel(layer_.bands), columns, layer_.bands, scale[0]);
      product<false>(layer_.projection + (row + 1) * panel(layer_.bands), columns, layer_.bands, shift[0]);
      const ptrdiff_t first = first_ + static_cast<ptrdiff_t>(i) * dilation_;
      const ptrdiff_t count = -greater(-static_cast<ptrdiff_t>(kColumns), first - samples_);
      for (size_t r = 0; r < rows_of(group); ++r) {
        const float scale_bias = layer_.bias[row * kGroup + r], shift_bias = layer_.bias[(row + 1) * kGroup + r];
        const size_t offset = (group * kGroup + r) * layer_.samples;
        const float* x = block_.state + offset;
        float* y = block_.output + offset;
        for (ptrdiff_t c = 0; c < count; ++c) {
          y[first + c] = (scale[r][c] + scale_bias) * x[first + c] + (shift[r][c] + shift_bias);
        }
      }
    }
  }

  size_t rows_of(size_t group) const {
    const size_t rest = layer_.channels - group * kGroup;
    return rest < kGroup ? rest : kGroup;
  }

  const ResidualLayer& layer_;
  const ResidualBlock& block_;
  const ptrdiff_t samples_, dilation_;
  const bool is_run_;  // the columns of a block are consecutive samples
  float* const points_;       // (kPoints, channels, kColumns)
  float* const conditioner_;  // (kPhases, bands, kColumns)
  float* const gated_;        // (kPhases, channels, kColumns)
  ptrdiff_t first_;           // sample of phase 0 in the first column
};

void residual_block(const ResidualLayer& layer, const ResidualBlock& block) { Residual(layer, block).compute(); }

void modulation_block(const ResidualLayer& layer, const ResidualBlock& block) { Residual(layer, block).modulate(); }

}  // namespace
