// Snake and AntiAliasedSnake.

#include "operators.h"

namespace gomin {

void compute_snake(const Kernel& kernel, Call& call) {
  const Tensor u = call.input(0);
  const bool scaled = call.input_count() > 1;
  const Tensor gain = scaled ? call.input(1) : Tensor{};
  if (!call.good()) return;
  if (scaled && (u.shape.rank != 3 || gain.shape.rank != 1 || gain.shape.sizes[0] != u.shape.sizes[1])) {
    return call.fail("expected u (B, C, T) and gain (C)");
  }
  float* y = call.output(u.shape);
  if (!call.good()) return;
  const size_t length = scaled ? static_cast<size_t>(u.shape.sizes[2]) : u.shape.count();
  const size_t channels = scaled ? static_cast<size_t>(u.shape.sizes[1]) : 1;
  call.parallel(u.shape.count(), kSamplesPerCall, [&](size_t begin, size_t end) {
    while (begin < end) {
      const size_t row = begin / length;
      const size_t row_end = (row + 1) * length;
      const size_t count = (end < row_end ? end : row_end) - begin;
      kernel.kernels.snake(u.data + begin, scaled ? gain.data[row % channels] : 1.0f, y + begin, count);
      begin += count;
    }
  });
}

void compute_anti_aliased_snake(const Kernel& kernel, Call& call) {
  const Tensor x = call.input(0), up = call.input(1), down = call.input(2);
  if (!call.good()) return;
  const int64_t* sizes = x.shape.sizes;
  if (x.shape.rank != 3) return call.fail("expected x (B, C, T)");
  if (!taps_for(up.shape, sizes[1]) || !taps_for(down.shape, sizes[1])) {
    return call.fail("expected up and down of shape (C, 12)");
  }
  float* y = call.output(x.shape);
  if (!call.good()) return;
  // rows in blocks, each of which is computed on its own
  const size_t channels = static_cast<size_t>(sizes[1]), columns = static_cast<size_t>(sizes[2]);
  const size_t blocks = (columns + kBlock - 1) / kBlock;
  const size_t rows = static_cast<size_t>(sizes[0]) * channels;
  const size_t step = 1 + kSamplesPerCall / ((blocks == 1 ? columns : kBlock) + 64);
  call.parallel(rows * blocks, step, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const size_t index = i / blocks, channel = index % channels, first = i % blocks * kBlock;
      const Row row{x.data + index * columns, y + index * columns, columns, columns, columns, 0};
      const size_t rest = columns - first;
      kernel.kernels.anti_aliased_snake(row, up.data + channel * kTaps, down.data + channel * kTaps, first,
                                        rest < kBlock ? rest : kBlock);
    }
  });
}

}  // namespace gomin
