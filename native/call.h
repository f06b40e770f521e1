// One call of an operator as ONNX Runtime makes it: its tensors, its threads and its first error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "kernels.h"
#include "ort_api.h"

namespace gomin {

constexpr size_t kMaxRank = 8;
constexpr size_t kSamplesPerCall = 16384;  // of one call on a thread; some microseconds

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

// An operator of a session: its instruction set and its attributes.
struct Kernel {
  const ort::Api& api;
  const Kernels& kernels;
  int64_t dilation, left, right, first_left, first_right, phases, trim;
};

// Whether a tensor has the taps of an anti-aliasing filter for each channel.
inline bool taps_for(const Shape& shape, int64_t channels) {
  return shape.rank == 2 && shape.sizes[0] == channels && shape.sizes[1] == kTaps;
}

}  // namespace gomin
