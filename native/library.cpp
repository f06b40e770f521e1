// ONNX Runtime operators of the domain `gomin`, version 1, for float32 on CPUs.
//
//   Snake(u[, gain (C,)]) -> y                  v + sin²v with v = u, or gain·u for u (B, C, T)
//   AntiAliasedSnake(x, up, down) -> y          Snake at twice the rate between two filters, (C, 12) taps each, for
//                                               x (B, C, T)
//   RowFilter(x, weight[, summand]) -> y        a filter over rows and columns, the same for all channels.
//                                               x (B, R, 1, C, J), weight (R', R, K), attributes left and right:
//                                               y (B, R', 1, C, J + left + right - K + 1) has at row r and column j
//                                               Σ weight[r, s, k]·x[s, j + k - left], plus the summand
//   SnakeFilter(x, up, down, weight) -> y       an AntiAliasedSnake of signals in four phases, x (B, 4, 1, C, T / 4),
//                                               then a RowFilter
//   RowFilterPair(x, first, weight) -> y        a RowFilter with the attributes first_left and first_right, v + sin²v,
//                                               then a RowFilter
//   ResidualLayer(state, step, conditioner, dilated, bias, projection, output, output_bias) -> y
//                                               a layer of the denoiser, of R channels with the attribute dilation:
//                                               state (B, 2R, N), the signal x and the sum of the skips; step (B, R);
//                                               conditioner (B, M, N); weights as in `ResidualLayer` of kernels.h.
//   Modulation(state, conditioner, projection, bias) -> y
//                                               FiLM: x of the state becomes scale·x + shift, the two halves of the
//                                               projection; the skips stay
//
// y has the shape of the first input, except for filters over rows. The environment variable GOMIN_OPS_ISA (avx512,
// avx2, neon, scalar) selects the instruction set, instead of the best one that the processor has; it is read when a
// session is created.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels.h"
#include "ort_api.h"

namespace gomin {
namespace {

constexpr size_t kMaxRank = 8;
constexpr size_t kMostParts = 64;  // of a residual layer; each has its own scratch memory for some milliseconds
constexpr size_t kSamplesPerCall = 16384;  // of one call on a thread; some microseconds
constexpr int64_t kMostPadding = 1 << 20;  // columns on either side of a filter's input

struct Shape {
  int64_t sizes[kMaxRank];
  size_t rank = 0;

  size_t count() const {
    size_t product = 1;
    for (size_t i = 0; i < rank; ++i) product *= static_cast<size_t>(sizes[i]);
    return product;
  }
  bool operator==(const Shape& other) const {
    if (rank != other.rank) return false;
    for (size_t i = 0; i < rank; ++i) {
      if (sizes[i] != other.sizes[i]) return false;
    }
    return true;
  }
};

struct Tensor {
  Shape shape;
  const float* data = nullptr;
};

// The first instruction set that the processor has, or the one that GOMIN_OPS_ISA names; null if it is not there.
const Kernels* choose_kernels() {
  const Kernels* available[3];
  size_t count = 0;
#if defined(__x86_64__)
  // dq, bw, vl: the compiler uses them once it may use AVX-512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    available[count++] = &kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) available[count++] = &kAvx2;
#elif defined(__aarch64__)
  available[count++] = &kNeon;
#endif
  available[count++] = &kScalar;
  const char* wanted = std::getenv("GOMIN_OPS_ISA");
  if (wanted == nullptr || *wanted == '\0') return available[0];
  for (size_t i = 0; i < count; ++i) {
    if (std::strcmp(wanted, available[i]->name) == 0) return available[i];
  }
  return nullptr;
}

// One call of an operator: its tensors, and the first error.
class Call {
 public:
  Call(const ort::Api& api, ort::KernelContext* context, const char* name)
      : api_(api), context_(context), name_(name) {}

  Tensor input(size_t index) {
    Tensor tensor;
    const ort::Value* value = nullptr;
    if (!ok(api_.input(context_, index, &value))) return tensor;
    if (value == nullptr) {
      fail("an input has no name");
      return tensor;
    }
    ort::TensorInfo* info = nullptr;
    if (!ok(api_.tensor_info(value, &info))) return tensor;
    if (ok(api_.rank(info, &tensor.shape.rank))) {
      if (tensor.shape.rank > kMaxRank) {
        fail("an input has more than 8 dimensions");
        tensor.shape.rank = 0;
      } else {
        ok(api_.dimensions(info, tensor.shape.sizes, tensor.shape.rank));
      }
    }
    api_.release_info(info);
    void* data = nullptr;
    ok(api_.mutable_data(const_cast<ort::Value*>(value), &data));
    tensor.data = static_cast<const float*>(data);
    return tensor;
  }

  size_t input_count() {
    size_t count = 0;
    ok(api_.input_count(context_, &count));
    return count;
  }

  float* output(const Shape& shape) {
    ort::Value* value = nullptr;
    void* data = nullptr;
    if (ok(api_.output(context_, 0, shape.sizes, shape.rank, &value))) ok(api_.mutable_data(value, &data));
    return static_cast<float*>(data);
  }

  // body(begin, end) for all of 0 … total-1, `step` at a time, on the threads of the session
  template <typename Body>
  void parallel(size_t total, size_t step, const Body& body) {
    if (total <= step) {
      if (total > 0) body(size_t{0}, total);
      return;
    }
    struct Part {
      const Body& body;
      size_t total, step;
    } part{body, total, step};
    const auto run = [](void* data, size_t index) {
      const Part& part = *static_cast<const Part*>(data);
      const size_t begin = index * part.step;
      const size_t end = begin + part.step;
      part.body(begin, end < part.total ? end : part.total);
    };
    ok(api_.parallel_for(context_, run, (total + step - 1) / step, 0, &part));
  }

  void fail(const char* reason) {
    if (status_ != nullptr) return;
    char message[256];
    std::snprintf(message, sizeof message, "gomin %s: %s", name_, reason);
    status_ = api_.create_status(ort::kInvalidArgument, message);
  }

  bool good() const { return status_ == nullptr; }
  ort::Status* status() const { return status_; }

 private:
  bool ok(ort::Status* status) {
    if (status == nullptr) return true;
    if (status_ == nullptr) {
      status_ = status;
    } else {
      api_.release_status(status);
    }
    return false;
  }

  const ort::Api& api_;
  ort::KernelContext* context_;
  const char* name_;
  ort::Status* status_ = nullptr;
};

struct Kernel {
  const ort::Api& api;
  const Kernels& kernels;
  int64_t dilation, left, right, first_left, first_right;
};

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

bool taps_for(const Shape& shape, int64_t channels) {
  return shape.rank == 2 && shape.sizes[0] == channels && shape.sizes[1] == kTaps;
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

// What ONNX Runtime asks of an operator; `custom_op` is the first member, so that a pointer to it is one to this.
struct Operator {
  ort::CustomOp custom_op;
  const char* name;
  size_t inputs;
  size_t required;
  void (*compute)(const Kernel&, Call&);
  const ort::Api* api = nullptr;  // of the ONNX Runtime that it is registered with; shape inference gets none
};

const Operator& described(const ort::CustomOp* op) { return *reinterpret_cast<const Operator*>(op); }

struct Instance {
  Kernel kernel;
  const Operator& op;
};

int64_t attribute(const ort::Api& api, const ort::KernelInfo* info, const char* name, int64_t absent) {
  int64_t value = absent;
  ort::Status* status = api.attribute(info, name, &value);
  if (status == nullptr) return value;
  api.release_status(status);
  return absent;
}

ort::Status* create(const ort::CustomOp* op, const ort::Api* api, const ort::KernelInfo* info, void** instance) {
  const Kernels* kernels = choose_kernels();
  if (kernels == nullptr) {
    return api->create_status(ort::kInvalidArgument,
                              "GOMIN_OPS_ISA names an instruction set that this processor or library does not have");
  }
  const int64_t dilation = attribute(*api, info, "dilation", 1);
  if (dilation < 1 || (dilation & (dilation - 1)) != 0 || dilation > (int64_t{1} << 32)) {
    return api->create_status(ort::kInvalidArgument, "gomin ResidualLayer: dilation must be a power of 2");
  }
  const int64_t paddings[] = {attribute(*api, info, "left", 0), attribute(*api, info, "right", 0),
                              attribute(*api, info, "first_left", 0), attribute(*api, info, "first_right", 0)};
  for (const int64_t padding : paddings) {
    if (padding < -kMostPadding || padding > kMostPadding) {
      return api->create_status(ort::kInvalidArgument, "gomin: a filter has more than 1048576 columns of padding");
    }
  }
  void* memory = std::malloc(sizeof(Instance));
  if (memory == nullptr) return api->create_status(ort::kFail, "gomin: out of memory");
  *instance = new (memory)
      Instance{{*api, *kernels, dilation, paddings[0], paddings[1], paddings[2], paddings[3]}, described(op)};
  return nullptr;
}

ort::Status* compute(void* instance, ort::KernelContext* context) {
  const Instance& self = *static_cast<const Instance*>(instance);
  Call call(self.kernel.api, context, self.op.name);
  self.op.compute(self.kernel, call);
  return call.status();
}

// The shape of the first input, if it is known: every size has a value or a name. ONNX Runtime gives unknown sizes the
// value -1, which it would take for a size again. An unknown shape has the rank 0.
ort::Status* infer_shape(const ort::CustomOp* op, ort::ShapeInferContext* context) {
  const ort::Api& api = *described(op).api;
  ort::TensorInfo* info = nullptr;
  if (ort::Status* status = api.input_shape(context, 0, &info)) return status;
  Shape shape;
  const char* names[kMaxRank] = {};
  if (ort::Status* status = api.rank(info, &shape.rank)) return status;
  if (shape.rank == 0 || shape.rank > kMaxRank) return nullptr;
  if (ort::Status* status = api.dimensions(info, shape.sizes, shape.rank)) return status;
  if (ort::Status* status = api.dimension_names(info, names, shape.rank)) return status;
  for (size_t i = 0; i < shape.rank; ++i) {
    if (shape.sizes[i] < 0 && (names[i] == nullptr || *names[i] == '\0')) return nullptr;
  }
  return api.set_output_shape(context, 0, info);
}

// The memory of input INDEX may become the output's: every value is read before it is written.
template <int INDEX>
size_t may_overwrite(int** inputs, int** outputs) {
  static int input[] = {INDEX}, output[] = {0};
  *inputs = input;
  *outputs = output;
  return 1;
}

constexpr ort::CustomOp custom_op(size_t (*overwrites)(int**, int**), bool keeps_shape = true) {
  ort::CustomOp op{};
  op.version = ort::kApiVersion;
  op.GetName = [](const ort::CustomOp* self) { return described(self).name; };
  op.GetExecutionProviderType = [](const ort::CustomOp*) -> const char* { return nullptr; };
  op.GetInputType = [](const ort::CustomOp*, size_t) { return ort::kFloat; };
  op.GetInputTypeCount = [](const ort::CustomOp* self) { return described(self).inputs; };
  op.GetOutputType = [](const ort::CustomOp*, size_t) { return ort::kFloat; };
  op.GetOutputTypeCount = [](const ort::CustomOp*) { return size_t{1}; };
  op.KernelDestroy = [](void* instance) { std::free(instance); };  // its members need no destructor
  op.GetInputCharacteristic = [](const ort::CustomOp* self, size_t index) {
    return index < described(self).required ? ort::kRequired : ort::kOptional;
  };
  op.GetOutputCharacteristic = [](const ort::CustomOp*, size_t) { return ort::kRequired; };
  op.GetInputMemoryType = [](const ort::CustomOp*, size_t) { return ort::kDefaultMemory; };
  op.GetVariadicInputMinArity = [](const ort::CustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = [](const ort::CustomOp*) { return 1; };
  op.GetVariadicOutputMinArity = [](const ort::CustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const ort::CustomOp*) { return 1; };
  op.CreateKernelV2 = create;
  op.KernelComputeV2 = compute;
  if (keeps_shape) op.InferOutputShapeFn = infer_shape;
  op.GetStartVersion = [](const ort::CustomOp*) { return 1; };
  op.GetEndVersion = [](const ort::CustomOp*) { return 1; };
  if (overwrites != nullptr) {
    op.GetMayInplace = overwrites;
    op.ReleaseMayInplace = [](int*, int*) {};
  }
  return op;
}

const Operator kOperators[] = {
    {custom_op(may_overwrite<0>), "Snake", 2, 1, compute_snake},
    {custom_op(nullptr), "AntiAliasedSnake", 3, 3, compute_anti_aliased_snake},
    {custom_op(may_overwrite<2>, false), "RowFilter", 3, 2, compute_row_filter},
    {custom_op(nullptr, false), "SnakeFilter", 4, 4, compute_snake_filter},
    {custom_op(nullptr, false), "RowFilterPair", 3, 3, compute_filter_pair},
    {custom_op(nullptr), "ResidualLayer", 8, 8, compute_residual_layer},
    {custom_op(may_overwrite<0>), "Modulation", 4, 4, compute_modulation},
};

constexpr size_t kOperatorCount = sizeof kOperators / sizeof kOperators[0];

// The operators and their domain for one ONNX Runtime. A process can have several, each with its own table of
// functions, and none can read the objects of another.
struct Registration {
  Operator operators[kOperatorCount];
  ort::CustomOpDomain* domain;
  Registration* next;
};

// Sessions keep pointers to registrations, so that each is made once and never released.
std::atomic<Registration*> g_registrations{nullptr};

Registration* registered(const ort::Api& api, Registration* newest) {
  while (newest != nullptr && newest->operators[0].api != &api) newest = newest->next;
  return newest;
}

void discard(const ort::Api& api, Registration* made) {
  api.release_domain(made->domain);
  std::free(made);
}

ort::Status* make_registration(const ort::Api& api, Registration** registration) {
  void* memory = std::malloc(sizeof(Registration));
  if (memory == nullptr) return api.create_status(ort::kFail, "gomin: out of memory");
  Registration* made = new (memory) Registration{};
  if (ort::Status* status = api.create_domain("gomin", &made->domain)) {
    std::free(made);
    return status;
  }
  for (size_t i = 0; i < kOperatorCount; ++i) {
    made->operators[i] = kOperators[i];
    made->operators[i].api = &api;
    if (ort::Status* status = api.add_operator(made->domain, &made->operators[i].custom_op)) {
      discard(api, made);
      return status;
    }
  }
  *registration = made;
  return nullptr;
}

ort::Status* domain_of(const ort::Api& api, ort::CustomOpDomain** domain) {
  Registration* newest = g_registrations.load();
  Registration* found = registered(api, newest);
  if (found == nullptr) {
    Registration* made = nullptr;
    if (ort::Status* status = make_registration(api, &made)) return status;
    do {
      // of two threads at the same time the first one's is used by both
      found = registered(api, newest);
      made->next = newest;
    } while (found == nullptr && !g_registrations.compare_exchange_weak(newest, made));
    if (found == nullptr) {
      found = made;
    } else {
      discard(api, made);
    }
  }
  *domain = found->domain;
  return nullptr;
}

}  // namespace
}  // namespace gomin

// The symbol that ONNX Runtime looks up when a session registers the library.
extern "C" __attribute__((visibility("default"))) ort::Status* RegisterCustomOps(ort::SessionOptions* options,
                                                                                 const ort::ApiBase* base) {
  const ort::Api* api = base->GetApi(ort::kApiVersion);
  if (api == nullptr) {
    // older than ONNX Runtime 1.18; a function of its first version can report it
    return base->GetApi(1)->create_status(ort::kFail, "gomin operators need ONNX Runtime 1.18 or later");
  }
  ort::CustomOpDomain* domain = nullptr;
  if (ort::Status* status = gomin::domain_of(*api, &domain)) return status;
  return api->add_domain(options, domain);
}
