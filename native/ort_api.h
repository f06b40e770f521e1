// The part of ONNX Runtime's C API that custom operators use, from its documentation (onnxruntime.ai/docs/api/c).
//
// ONNX Runtime gives out a table of functions. Its order never changes; new functions are appended. Only the types and
// positions that this library uses are declared here, so that a build needs no header of ONNX Runtime. API version 18,
// the first one with GetMayInplace, is in ONNX Runtime 1.18 and all later ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ort {

constexpr uint32_t kApiVersion = 18;

struct Status;
struct KernelInfo;
struct KernelContext;
struct ShapeInferContext;
struct Value;
struct TensorInfo;
struct SessionOptions;
struct CustomOpDomain;
struct Api;

struct ApiBase {
  const Api* (*GetApi)(uint32_t version) noexcept;
  const char* (*GetVersionString)() noexcept;
};

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };
enum ElementType : int { kFloat = 1 };
enum Characteristic : int { kRequired = 0, kOptional = 1 };
enum MemoryType : int { kDefaultMemory = 0 };

// OrtCustomOp: what ONNX Runtime asks of an operator
struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  ElementType (*GetInputType)(const CustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const CustomOp*);
  ElementType (*GetOutputType)(const CustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void* kernel, KernelContext*);
  void (*KernelDestroy)(void* kernel);
  Characteristic (*GetInputCharacteristic)(const CustomOp*, size_t index);
  Characteristic (*GetOutputCharacteristic)(const CustomOp*, size_t index);
  MemoryType (*GetInputMemoryType)(const CustomOp*, size_t index);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  Status* (*CreateKernelV2)(const CustomOp*, const Api*, const KernelInfo*, void** kernel);
  Status* (*KernelComputeV2)(void* kernel, KernelContext*);
  Status* (*InferOutputShapeFn)(const CustomOp*, ShapeInferContext*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
  size_t (*GetMayInplace)(int** inputs, int** outputs);
  void (*ReleaseMayInplace)(int* inputs, int* outputs);
  size_t (*GetAliasMap)(int** inputs, int** outputs);
  void (*ReleaseAliasMap)(int* inputs, int* outputs);
};

// OrtApi: the table. A function that can fail returns a Status, which is null on success.
struct Api {
  template <typename Result, typename... Arguments>
  Result call(size_t position, Arguments... arguments) const noexcept {
    auto* table = reinterpret_cast<void* const*>(this);
    return reinterpret_cast<Result (*)(Arguments...) noexcept>(table[position])(arguments...);
  }

  Status* create_status(ErrorCode code, const char* message) const { return call<Status*>(0, code, message); }
  Status* create_domain(const char* name, CustomOpDomain** domain) const { return call<Status*>(26, name, domain); }
  Status* add_operator(CustomOpDomain* domain, const CustomOp* op) const { return call<Status*>(27, domain, op); }
  Status* add_domain(SessionOptions* options, CustomOpDomain* domain) const {
    return call<Status*>(28, options, domain);
  }
  Status* mutable_data(Value* value, void** data) const { return call<Status*>(51, value, data); }
  Status* rank(const TensorInfo* info, size_t* rank) const { return call<Status*>(61, info, rank); }
  Status* dimensions(const TensorInfo* info, int64_t* values, size_t count) const {
    return call<Status*>(62, info, values, count);
  }
  Status* dimension_names(const TensorInfo* info, const char** names, size_t count) const {
    return call<Status*>(63, info, names, count);
  }
  Status* tensor_info(const Value* value, TensorInfo** info) const { return call<Status*>(65, value, info); }
  Status* attribute(const KernelInfo* info, const char* name, int64_t* value) const {
    return call<Status*>(86, info, name, value);
  }
  Status* input_count(const KernelContext* context, size_t* count) const { return call<Status*>(88, context, count); }
  Status* input(const KernelContext* context, size_t index, const Value** value) const {
    return call<Status*>(90, context, index, value);
  }
  Status* output(KernelContext* context, size_t index, const int64_t* shape, size_t rank, Value** value) const {
    return call<Status*>(91, context, index, shape, rank, value);
  }
  void release_status(Status* status) const { call<void>(93, status); }
  void release_info(TensorInfo* info) const { call<void>(99, info); }
  void release_domain(CustomOpDomain* domain) const { call<void>(101, domain); }
  // the info stays ONNX Runtime's
  Status* input_shape(const ShapeInferContext* context, size_t index, TensorInfo** info) const {
    return call<Status*>(268, context, index, info);
  }
  Status* set_output_shape(const ShapeInferContext* context, size_t index, const TensorInfo* info) const {
    return call<Status*>(270, context, index, info);
  }
  // calls function(data, i) for i = 0 … total-1 on the threads of the session; batches = 0: one by one
  Status* parallel_for(const KernelContext* context, void (*function)(void*, size_t), size_t total, size_t batches,
                       void* data) const {
    return call<Status*>(274, context, function, total, batches, data);
  }
};

}  // namespace ort
