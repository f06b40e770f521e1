// RowFilter, SnakeFilter and RowFilterPair: filters over rows.

#include "operators.h"

namespace gomin {
namespace {

// The entries of a filter that are not zero; the reason why there is none, or null.
const char* make_filter(const Tensor& weight, int64_t left, bool snake, RowFilter* filter) {
  const int64_t* sizes = weight.shape.sizes;
  if (weight.shape.rank != 3) return "expected filters (R', R, K)";
  if (sizes[0] > kMaxRows || sizes[1] > kMaxRows || sizes[2] > kMaxReach) return "the filter is too large";
  filter->rows_out = static_cast<int>(sizes[0]);
  filter->rows_in = static_cast<int>(sizes[1]);
  const int taps = static_cast<int>(sizes[2]);
  filter->first = static_cast<int>(-left);
  filter->last = filter->first + taps - 1;
  filter->snake = snake;
  int count = 0;
  const float* coefficient = weight.data;
  for (int row = 0; row < filter->rows_out; ++row) {
    for (int source = 0; source < filter->rows_in; ++source) {
      for (int tap = 0; tap < taps; ++tap, ++coefficient) {
        if (*coefficient == 0.0f) continue;
        if (count == kMaxEntries) return "the filter has too many coefficients";
        filter->entries[count++] = {source, filter->first + tap, *coefficient};
      }
    }
    filter->ends[row] = count;
  }
  return nullptr;
}

int64_t filtered_columns(const RowFilter& filter, int64_t columns, int64_t left, int64_t right) {
  return columns + left + right - (filter.last - filter.first);
}

// A filter of x, or of what a stage makes of x.
struct Filtering {
  const Kernel& kernel;
  const RowFilter& filter;
  const Stage* stage;  // null: none; its taps are those of the first channel
  Tensor x, summand;
  size_t rows_made;  // rows that the filter reads

  void run(Call& call) const {
    Shape shape = x.shape;
    const int64_t made = stage != nullptr ? static_cast<int64_t>(stage->columns) : shape.sizes[4];
    shape.sizes[1] = filter.rows_out;
    shape.sizes[4] = filtered_columns(filter, made, kernel.left, kernel.right);
    if (rows_made != static_cast<size_t>(filter.rows_in)) return call.fail("the filter is for another number of rows");
    if (shape.sizes[4] < 0) return call.fail("the filter is longer than x with its padding");
    if (summand.data != nullptr && !(summand.shape == shape)) return call.fail("expected a summand of the shape of y");
    float* y = call.output(shape);
    if (!call.good()) return;
    const size_t channels = static_cast<size_t>(shape.sizes[3]), columns = static_cast<size_t>(shape.sizes[4]);
    const size_t rows_in = static_cast<size_t>(x.shape.sizes[1]), columns_in = static_cast<size_t>(x.shape.sizes[4]);
    const size_t block = stage != nullptr ? kChainBlock : kFilterBlock;
    const size_t blocks = (columns + block - 1) / block;
    const size_t shortest = (blocks == 1 ? columns : block) * static_cast<size_t>(filter.rows_out);
    const size_t step = 1 + kSamplesPerCall / (shortest + 64);
    call.parallel(static_cast<size_t>(shape.sizes[0]) * channels * blocks, step, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        const size_t index = i / blocks, item = index / channels, channel = index % channels;
        const size_t first = i % blocks * block, rest = columns - first;
        const size_t input = (item * rows_in * channels + channel) * columns_in;
        const size_t output = (item * static_cast<size_t>(filter.rows_out) * channels + channel) * columns;
        const FilterRows rows{x.data + input,     summand.data != nullptr ? summand.data + output : nullptr,
                              y + output,         columns_in,
                              channels * columns_in, channels * columns};
        const size_t count = rest < block ? rest : block;
        if (stage == nullptr) {
          kernel.kernels.row_filter(filter, rows, first, count);
        } else {
          Stage own = *stage;
          if (own.filter == nullptr) {
            own.up += channel * kTaps;
            own.down += channel * kTaps;
          }
          kernel.kernels.chain(own, filter, rows, first, count);
        }
      }
    });
  }
};

bool on_rows(const Shape& shape) { return shape.rank == 5 && shape.sizes[2] == 1; }

}  // namespace

void compute_row_filter(const Kernel& kernel, Call& call) {
  const Tensor x = call.input(0), weight = call.input(1);
  const Tensor summand = call.input_count() > 2 ? call.input(2) : Tensor{};
  if (!call.good()) return;
  if (!on_rows(x.shape)) return call.fail("expected x (B, R, 1, C, J)");
  RowFilter filter;
  if (const char* reason = make_filter(weight, kernel.left, false, &filter)) return call.fail(reason);
  Filtering{kernel, filter, nullptr, x, summand, static_cast<size_t>(x.shape.sizes[1])}.run(call);
}

void compute_snake_filter(const Kernel& kernel, Call& call) {
  const Tensor x = call.input(0), up = call.input(1), down = call.input(2), weight = call.input(3);
  if (!call.good()) return;
  if (!on_rows(x.shape) || x.shape.sizes[1] != 4) return call.fail("expected x (B, 4, 1, C, J)");
  if (!taps_for(up.shape, x.shape.sizes[3]) || !taps_for(down.shape, x.shape.sizes[3])) {
    return call.fail("expected up and down of shape (C, 12)");
  }
  RowFilter filter;
  if (const char* reason = make_filter(weight, kernel.left, false, &filter)) return call.fail(reason);
  const Stage stage{up.data, down.data, nullptr, static_cast<size_t>(x.shape.sizes[4])};
  Filtering{kernel, filter, &stage, x, {}, 4}.run(call);
}

void compute_filter_pair(const Kernel& kernel, Call& call) {
  const Tensor x = call.input(0), first_weight = call.input(1), weight = call.input(2);
  if (!call.good()) return;
  if (!on_rows(x.shape)) return call.fail("expected x (B, R, 1, C, J)");
  RowFilter first, filter;
  if (const char* reason = make_filter(first_weight, kernel.first_left, true, &first)) return call.fail(reason);
  if (const char* reason = make_filter(weight, kernel.left, false, &filter)) return call.fail(reason);
  const int64_t columns = filtered_columns(first, x.shape.sizes[4], kernel.first_left, kernel.first_right);
  if (x.shape.sizes[1] != first.rows_in) return call.fail("the filter is for another number of rows");
  if (columns < 0) return call.fail("the filter is longer than x with its padding");
  const Stage stage{nullptr, nullptr, &first, static_cast<size_t>(columns)};
  Filtering{kernel, filter, &stage, x, {}, static_cast<size_t>(first.rows_out)}.run(call);
}

}  // namespace gomin
