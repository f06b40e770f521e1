// ResidualLayer and Modulation: the denoiser's layers and FiLM.

#include <atomic>
#include <cstdlib>

#include "operators.h"

namespace gomin {
namespace {

constexpr size_t kMostParts = 64;  // of a residual layer; each has its own scratch memory for some milliseconds

// Calls a kernel for all blocks of a layer.
void compute_blocks(Call& call, const ResidualLayer& layer, size_t items, ResidualBlock block,
                    void (*compute)(const ResidualLayer&, const ResidualBlock&)) {
  const size_t blocks = layer.blocks(), state = 2 * layer.channels * layer.samples;
  const size_t total = items * blocks;
  std::atomic<bool> is_complete{true};
  call.parallel(total, 1 + total / kMostParts, [&](size_t begin, size_t end) {
    void* scratch = nullptr;
    if (posix_memalign(&scratch, 64, layer.scratch() * sizeof(float)) != 0) {
      is_complete = false;
      return;
    }
    for (size_t i = begin; i < end; ++i) {
      const size_t item = i / blocks;
      const float* step = block.step != nullptr ? block.step + item * layer.channels : nullptr;
      compute(layer, {block.state + item * state, step, block.conditioner + item * layer.bands * layer.samples,
                      block.output + item * state, i % blocks * kResidualColumns, static_cast<float*>(scratch)});
    }
    std::free(scratch);
  });
  if (!is_complete) call.fail("out of memory");
}

}  // namespace

void compute_residual_layer(const Kernel& kernel, Call& call) {
  Tensor inputs[8];
  for (size_t i = 0; i < 8; ++i) inputs[i] = call.input(i);
  if (!call.good()) return;
  const Shape &state = inputs[0].shape, &step = inputs[1].shape, &conditioner = inputs[2].shape;
  if (state.rank != 3 || step.rank != 2 || conditioner.rank != 3 || step.sizes[0] != state.sizes[0] ||
      state.sizes[1] != 2 * step.sizes[1] || conditioner.sizes[0] != state.sizes[0] ||
      conditioner.sizes[2] != state.sizes[2]) {
    return call.fail("expected state (B, 2R, N), step (B, R) and conditioner (B, M, N)");
  }
  ResidualLayer layer{inputs[3].data, inputs[4].data, inputs[5].data, inputs[6].data, inputs[7].data,
                      static_cast<size_t>(step.sizes[1]), static_cast<size_t>(conditioner.sizes[1]),
                      static_cast<size_t>(state.sizes[2]), static_cast<size_t>(kernel.dilation)};
  const size_t rows = 2 * layer.row_groups() * kRowGroup;
  const size_t expected[] = {6 * rows * layer.channels, rows, rows * layer.bands, rows * layer.channels, rows};
  for (size_t i = 0; i < 5; ++i) {
    if (inputs[3 + i].shape.count() != expected[i]) return call.fail("the weights do not have R channels and M bands");
  }
  float* y = call.output(state);
  if (!call.good() || state.count() == 0) return;
  compute_blocks(call, layer, static_cast<size_t>(state.sizes[0]),
                 {inputs[0].data, inputs[1].data, inputs[2].data, y, 0, nullptr}, kernel.kernels.residual_block);
}

void compute_modulation(const Kernel& kernel, Call& call) {
  const Tensor state = call.input(0), conditioner = call.input(1), weights = call.input(2), bias = call.input(3);
  if (!call.good()) return;
  const int64_t* sizes = state.shape.sizes;
  if (state.shape.rank != 3 || conditioner.shape.rank != 3 || sizes[1] % 2 != 0 ||
      conditioner.shape.sizes[0] != sizes[0] || conditioner.shape.sizes[2] != sizes[2]) {
    return call.fail("expected state (B, 2R, N) and conditioner (B, M, N)");
  }
  const ResidualLayer layer{nullptr, bias.data, weights.data, nullptr, nullptr, static_cast<size_t>(sizes[1] / 2),
                            static_cast<size_t>(conditioner.shape.sizes[1]), static_cast<size_t>(sizes[2]),
                            kResidualColumns};
  const size_t rows = 2 * layer.row_groups() * kRowGroup;
  if (weights.shape.count() != rows * layer.bands || bias.shape.count() != rows) {
    return call.fail("the weights do not have R channels and M bands");
  }
  float* y = call.output(state.shape);
  if (!call.good() || state.shape.count() == 0) return;
  compute_blocks(call, layer, static_cast<size_t>(sizes[0]), {state.data, nullptr, conditioner.data, y, 0, nullptr},
                 kernel.kernels.modulation_block);
}

}  // namespace gomin
