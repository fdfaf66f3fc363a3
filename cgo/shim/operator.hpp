// An operator as the shim knows it, and how its arguments are read.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <memory>

#include "common.hpp"

namespace tg {

// What an argument takes, read off the schema once. Neither callBoxed nor a typed call checks its
// arguments, so every value is checked against this before the call.
enum class Want : uint8_t {
  Tensor,
  Int,
  DType,
  Layout,
  MemoryFormat,
  QScheme,
  Double,
  Number,
  Bool,
  String,
  Device,
  Generator,
  Ints,
  Doubles,
  Bools,
  Numbers,
  Strings,
  Tensors,
  OptTensors,
  TensorLists,
  Object,
  Objects,
  Storage,
  Stream,
  Any,
  Unsupported
};

struct Argument {
  Want want;
  bool optional;
  bool symbolic;  // SymInt in place of int, also as an element
  bool operator==(const Argument&) const = default;
};

class Reader;
struct Operator;

// Calls an operator of a frequent C++ signature without boxing its arguments. The result is the
// operator's; undefined if it is the argument that `same` names.
using Unboxed = at::Tensor (*)(const Operator& op, Reader& in);

struct Operator {
  c10::OperatorHandle handle;
  std::string name;
  std::vector<Argument> arguments;
  std::vector<int16_t> same;  // for each result: the argument it is, written to, or -1
  Unboxed unboxed = nullptr;
  std::shared_ptr<const void> typed;  // the handle as `unboxed` calls it
};

// Sets unboxed and typed if the operator has one of the frequent signatures.
void choose_unboxed(Operator& op);

// Errors about argument i. `tag` is of the value that came.
[[noreturn]] void wrong(const Operator& op, size_t i, uint64_t tag);
[[noreturn]] void undefined(const Operator& op, size_t i);
[[noreturn]] void out_of_range(const Operator& op, size_t i, int64_t value);
[[noreturn]] void words_end_early();
[[noreturn]] void words_left_over(const Operator& op);

// Reads values from words, never past the end.
class Reader {
 public:
  Reader(const uint64_t* words, int64_t n) : p_(words), end_(words + n) {}

  uint64_t word() {
    if (p_ == end_) words_end_early();
    return *p_++;
  }
  const uint64_t* words(uint64_t n) {
    if (n > static_cast<uint64_t>(end_ - p_)) words_end_early();
    const uint64_t* at = p_;
    p_ += n;
    return at;
  }
  bool done() const { return p_ == end_; }

 private:
  const uint64_t* p_;
  const uint64_t* end_;
};

inline double as_double(uint64_t w) {
  double d;
  std::memcpy(&d, &w, sizeof d);
  return d;
}

// A number whose head has this tag.
at::Scalar number(const Operator& op, size_t i, uint64_t tag, Reader& in);

// How many values an enumeration has.
constexpr int64_t values_of(Want w) {
  switch (w) {
    case Want::DType:
      return static_cast<int64_t>(c10::ScalarType::Undefined);
    case Want::Layout:
      return static_cast<int64_t>(c10::Layout::NumOptions);
    case Want::MemoryFormat:
      return static_cast<int64_t>(c10::MemoryFormat::NumOptions);
    default:
      return c10::COMPILE_TIME_NUM_QSCHEMES;
  }
}

}  // namespace tg
