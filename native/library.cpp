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
//   Interleave(x[, modulation]) -> y            x (B, phases·C, J), rows p·C + c for phase p of channel c: the samples
//                                               in order without `trim` at either end, y (B, C, N); times 1 + scale
//                                               plus shift, modulation (B, 2C, N)
//   ResidualLayer(state, step, conditioner, dilated, bias, projection, output, output_bias) -> y
//                                               a layer of the denoiser, of R channels with the attribute dilation:
//                                               state (B, 2R, N), the signal x and the sum of the skips; step (B, R);
//                                               conditioner (B, M, N); weights as in `ResidualLayer` of kernels.h.
//   Modulation(state, conditioner, projection, bias) -> y
//                                               FiLM: x of the state becomes scale·x + shift, the two halves of the
//                                               projection; the skips stay
//
// y has the shape of the first input, except for filters over rows and Interleave. The environment variable
// GOMIN_OPS_ISA (avx512, avx2, neon, scalar) selects the instruction set, instead of the best one that the processor
// has; it is read when a session is created.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "operators.h"

namespace gomin {
namespace {

constexpr int64_t kMostPadding = 1 << 20;  // columns on either side of a filter's input

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
  const int64_t phases = attribute(*api, info, "phases", 1), trim = attribute(*api, info, "trim", 0);
  if (phases < 1 || phases > static_cast<int64_t>(kMostPhases) || trim < 0 || trim > kMostPadding) {
    return api->create_status(ort::kInvalidArgument, "gomin Interleave: phases must be 1 to 64, trim 0 to 1048576");
  }
  void* memory = std::malloc(sizeof(Instance));
  if (memory == nullptr) return api->create_status(ort::kFail, "gomin: out of memory");
  *instance = new (memory)
      Instance{{*api, *kernels, dilation, paddings[0], paddings[1], paddings[2], paddings[3], phases, trim},
               described(op)};
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
    {custom_op(nullptr, false), "Interleave", 2, 1, compute_interleave},
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
