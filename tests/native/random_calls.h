// Calls of the kernels with arrays of exactly the size that they may touch, for random sizes and values, and a digest of
// what they compute.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels.h"

namespace {

std::mt19937 random_bits;

uint64_t digest;  // of what the kernels computed

// Every NaN counts as the same one: processors differ in their bits.
void note(const float* computed, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits = 0x7fc00000u;
    if (computed[i] == computed[i]) memcpy(&bits, &computed[i], sizeof bits);
    digest = (digest ^ bits) * 0x100000001b3u;
  }
}

size_t below(size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random_bits); }

// on the heap, so that both ends are guarded
std::unique_ptr<float[]> values(size_t count) {
  std::unique_ptr<float[]> result(new float[count]);
  const float scale = below(8) == 0 ? 1e7f : 1.0f;
  std::uniform_real_distribution<float> uniform(-scale, scale);
  for (size_t i = 0; i < count; ++i) result[i] = uniform(random_bits);
  return result;
}

// short, or around the size of a block
size_t length(size_t block) { return 1 + (below(2) == 0 ? below(70) : block - 40 + below(80)); }

void rows(const gomin::Kernels& kernels) {
  const size_t count = length(1024);
  auto u = values(count), y = values(count);
  kernels.snake(u.get(), 0.5f, y.get(), count);
  note(y.get(), count);
  kernels.snake(u.get(), 2.0f, u.get(), count);
}

void anti_aliased(const gomin::Kernels& kernels) {
  const size_t columns = length(gomin::kBlock) + below(2) * gomin::kBlock;
  auto x = values(columns), y = values(columns), up = values(gomin::kTaps), down = values(gomin::kTaps);
  const gomin::Row row{x.get(), y.get(), columns, columns, columns, 0};
  for (size_t first = 0; first < columns; first += gomin::kBlock) {
    const size_t rest = columns - first;
    kernels.anti_aliased_snake(row, up.get(), down.get(), first, rest < gomin::kBlock ? rest : gomin::kBlock);
  }
  note(y.get(), columns);
}

// a filter of random size, with about half as many entries as may be
gomin::RowFilter random_filter(int rows_in, int rows_out) {
  gomin::RowFilter filter;
  filter.rows_in = rows_in;
  filter.rows_out = rows_out;
  const int taps = 1 + static_cast<int>(below(gomin::kMaxReach));
  filter.first = static_cast<int>(below(80)) - 40;
  filter.last = filter.first + taps - 1;
  filter.snake = below(2) == 1;
  int entries = 0;
  for (int row = 0; row < rows_out; ++row) {
    for (int i = static_cast<int>(below(gomin::kMaxEntries / gomin::kMaxRows)); i > 0; --i) {
      const int source = static_cast<int>(below(static_cast<size_t>(rows_in)));
      filter.entries[entries++] = {source, filter.first + static_cast<int>(below(static_cast<size_t>(taps))), 0.25f};
    }
    filter.ends[row] = entries;
  }
  return filter;
}

int random_rows() { return 1 + static_cast<int>(below(gomin::kMaxRows)); }

void filter(const gomin::Kernels& kernels) {
  const int rows_in = random_rows(), rows_out = random_rows();  // arguments have no order of their own
  const gomin::RowFilter filter = random_filter(rows_in, rows_out);
  const int columns_in = static_cast<int>(length(gomin::kFilterBlock));
  const int columns_out = columns_in + static_cast<int>(below(80)) - 40;
  if (columns_out <= 0) return;
  const size_t in = static_cast<size_t>(columns_in), out = static_cast<size_t>(columns_out);
  auto x = values(static_cast<size_t>(filter.rows_in) * in), y = values(static_cast<size_t>(filter.rows_out) * out);
  auto summand = values(static_cast<size_t>(filter.rows_out) * out);
  const float* added[] = {nullptr, summand.get(), y.get()};
  const gomin::FilterRows given{x.get(), added[below(3)], y.get(), in, in, out};
  for (size_t first = 0; first < out; first += gomin::kFilterBlock) {
    kernels.row_filter(filter, given, first, out - first < gomin::kFilterBlock ? out - first : gomin::kFilterBlock);
  }
  note(y.get(), static_cast<size_t>(filter.rows_out) * out);
}

void interleaved(const gomin::Kernels& kernels) {
  const size_t phases = 1 + below(below(8) == 0 ? gomin::kMostPhases : 6), columns = 1 + length(gomin::kBlock) / phases;
  const size_t trim = below(phases * columns / 2 + 1), samples = phases * columns - 2 * trim;
  auto x = values(phases * columns), y = values(samples), scale = values(samples), shift = values(samples);
  gomin::Interleaved row{x.get(), scale.get(), shift.get(), y.get(), phases, columns, trim};
  if (below(2) == 0) row.scale = row.shift = nullptr;
  for (size_t first = 0; first < samples; first += gomin::kBlock) {
    kernels.interleave(row, first, samples - first < gomin::kBlock ? samples - first : gomin::kBlock);
  }
  note(y.get(), samples);
}

void residual(const gomin::Kernels& kernels) {
  gomin::ResidualLayer layer{};
  layer.channels = 1 + below(14);
  layer.bands = 1 + below(7);
  layer.samples = 1 + below(1500);
  layer.dilation = size_t{1} << below(10);
  const size_t rows = 2 * layer.row_groups() * gomin::kRowGroup, state = 2 * layer.channels * layer.samples;
  auto dilated = values(6 * rows * layer.channels), bias = values(rows), projection = values(rows * layer.bands);
  auto output = values(rows * layer.channels), output_bias = values(rows);
  layer.dilated = dilated.get();
  layer.bias = bias.get();
  layer.projection = projection.get();
  layer.output = output.get();
  layer.output_bias = output_bias.get();
  auto x = values(state), step = values(layer.channels), conditioner = values(layer.bands * layer.samples);
  auto y = values(state), scratch = values(layer.scratch());
  for (size_t block = 0; block < layer.blocks(); ++block) {
    kernels.residual_block(layer, {x.get(), step.get(), conditioner.get(), y.get(), block * gomin::kResidualColumns,
                                   scratch.get()});
  }
  note(y.get(), state);
  layer.dilation = gomin::kResidualColumns;
  float* targets[] = {y.get(), x.get()};
  float* target = targets[below(2)];
  for (size_t block = 0; block < layer.blocks(); ++block) {
    kernels.modulation_block(layer, {x.get(), nullptr, conditioner.get(), target, block * gomin::kResidualColumns,
                                     scratch.get()});
  }
  note(target, state / 2);
}

void chained(const gomin::Kernels& kernels) {
  const bool snake = below(2) == 0;
  const int rows_in = snake ? 4 : random_rows(), rows_made = snake ? 4 : random_rows();
  const gomin::RowFilter before = random_filter(rows_in, rows_made), filter = random_filter(rows_made, random_rows());
  const size_t in = length(gomin::kFilterBlock), made = snake ? in : length(gomin::kFilterBlock), out = length(300);
  auto x = values(static_cast<size_t>(rows_in) * in), y = values(static_cast<size_t>(filter.rows_out) * out);
  auto up = values(gomin::kTaps), down = values(gomin::kTaps);
  const gomin::Stage stage{up.get(), down.get(), snake ? nullptr : &before, made};
  const gomin::FilterRows given{x.get(), nullptr, y.get(), in, in, out};
  for (size_t first = 0; first < out; first += gomin::kChainBlock) {
    kernels.chain(stage, filter, given, first, out - first < gomin::kChainBlock ? out - first : gomin::kChainBlock);
  }
  note(y.get(), static_cast<size_t>(filter.rows_out) * out);
}

// kernels of this processor's instruction sets
std::vector<const gomin::Kernels*> available() {
  std::vector<const gomin::Kernels*> found = {&gomin::kScalar};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&gomin::kAvx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    found.push_back(&gomin::kAvx512);
  }
#elif defined(__aarch64__)
  found.push_back(&gomin::kNeon);
#endif
  return found;
}

struct Call {
  const char* name;
  void (*run)(const gomin::Kernels&);
};
constexpr Call kCalls[] = {{"rows", rows},         {"anti_aliased", anti_aliased}, {"filter", filter},
                           {"interleaved", interleaved}, {"residual", residual},   {"chained", chained}};

}  // namespace
