// Interleave: phases put in order, and FiLM.

#include "operators.h"

namespace gomin {

void compute_interleave(const Kernel& kernel, Call& call) {
  const Tensor x = call.input(0);
  const bool modulated = call.input_count() > 1;
  const Tensor modulation = modulated ? call.input(1) : Tensor{};
  if (!call.good()) return;
  if (x.shape.rank != 3 || x.shape.sizes[1] % kernel.phases != 0) return call.fail("expected x (B, phases * C, J)");
  Shape shape = x.shape;
  shape.sizes[1] = x.shape.sizes[1] / kernel.phases;
  shape.sizes[2] = x.shape.sizes[2] * kernel.phases - 2 * kernel.trim;
  if (shape.sizes[2] < 0) return call.fail("x has fewer samples than are trimmed");
  if (modulated) {
    Shape expected = shape;
    expected.sizes[1] = 2 * shape.sizes[1];
    if (!(modulation.shape == expected)) return call.fail("expected a modulation (B, 2C, N) for y (B, C, N)");
  }
  float* y = call.output(shape);
  if (!call.good() || shape.count() == 0) return;
  const size_t channels = static_cast<size_t>(shape.sizes[1]), samples = static_cast<size_t>(shape.sizes[2]);
  const size_t phases = static_cast<size_t>(kernel.phases), columns = static_cast<size_t>(x.shape.sizes[2]);
  const size_t blocks = (samples + kBlock - 1) / kBlock;
  const size_t step = 1 + kSamplesPerCall / (blocks == 1 ? samples : kBlock);
  call.parallel(static_cast<size_t>(shape.sizes[0]) * channels * blocks, step, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const size_t index = i / blocks, item = index / channels, channel = index % channels;
      const size_t first = i % blocks * kBlock, rest = samples - first;
      const float* scale = modulated ? modulation.data + (2 * item * channels + channel) * samples : nullptr;
      const Interleaved row{x.data + (item * phases * channels + channel) * columns,
                            scale,
                            modulated ? scale + channels * samples : nullptr,
                            y + index * samples,
                            phases,
                            channels * columns,
                            static_cast<size_t>(kernel.trim)};
      kernel.kernels.interleave(row, first, rest < kBlock ? rest : kBlock);
    }
  });
}

}  // namespace gomin
