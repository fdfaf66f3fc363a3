// Operators of frequent signatures, called as C++ calls them. Boxing an argument list costs 0.1 to
// 0.4 us, which a small operator feels.
#include <ATen/core/IListRef.h>
#include <c10/util/SmallVector.h>

#include <tuple>
#include <utility>

#include "operator.hpp"

namespace tg {
namespace {

// A tensor of the caller's for the length of a call. It has no reference of its own: the caller
// keeps his until the call returns. (libtorch's MaybeOwned does the same.)
class Borrowed {
 public:
  explicit Borrowed(tg_tensor handle) : tensor_(take(handle)) {}
  Borrowed(Borrowed&& other) noexcept : tensor_(std::move(other.tensor_)) {}
  ~Borrowed() { tensor_.unsafeReleaseTensorImpl(); }
  operator const at::Tensor&() const { return tensor_; }

 private:
  at::Tensor tensor_;
};

class OptionalBorrowed {
 public:
  OptionalBorrowed() = default;
  explicit OptionalBorrowed(tg_tensor handle) : tensor_(take(handle)) {}
  OptionalBorrowed(OptionalBorrowed&& other) noexcept { tensor_.swap(other.tensor_); }
  ~OptionalBorrowed() {
    if (tensor_) tensor_->unsafeReleaseTensorImpl();
  }
  operator const std::optional<at::Tensor>&() const { return tensor_; }

 private:
  std::optional<at::Tensor> tensor_;
};

class BorrowedList {
 public:
  BorrowedList(const uint64_t* handles, uint64_t n) {
    tensors_.reserve(n);
    for (uint64_t i = 0; i < n; i++) tensors_.push_back(take(handles[i]));
  }
  BorrowedList(BorrowedList&&) = default;
  ~BorrowedList() {
    for (at::Tensor& t : tensors_) t.unsafeReleaseTensorImpl();
  }
  operator at::TensorList() const { return tensors_; }

 private:
  c10::SmallVector<at::Tensor, 4> tensors_;
};

uint64_t payload(const Operator& op, size_t i, Reader& in, uint64_t tag) {
  uint64_t head = in.word();
  if ((head & 0xff) != tag) wrong(op, i, head & 0xff);
  return head >> 8;
}

// True, and read, if the value is None.
bool none(Reader& in, const Reader& at) {
  Reader ahead = at;
  if ((ahead.word() & 0xff) != TG_NONE) return false;
  in = ahead;
  return true;
}
bool none(Reader& in) { return none(in, in); }

tg_tensor handle(const Operator& op, size_t i, Reader& in) {
  payload(op, i, in, TG_TENSOR);
  tg_tensor h = in.word();
  if (h == 0) undefined(op, i);
  return h;
}

int64_t integer(const Operator& op, size_t i, Reader& in) {
  payload(op, i, in, TG_INT);
  return static_cast<int64_t>(in.word());
}

at::IntArrayRef integers(const Operator& op, size_t i, Reader& in) {
  uint64_t n = payload(op, i, in, TG_INTS);
  return {reinterpret_cast<const int64_t*>(in.words(n)), n};
}

// How a C++ parameter is described by the schema, and read.
template <class Parameter>
struct Form;

template <Want W, bool Symbolic = false>
struct Plain {
  static constexpr Argument argument{W, false, Symbolic};
};

template <>
struct Form<const at::Tensor&> : Plain<Want::Tensor> {
  static Borrowed read(const Operator& op, size_t i, Reader& in) { return Borrowed(handle(op, i, in)); }
};

template <>
struct Form<at::Tensor&> : Plain<Want::Tensor> {  // an operator may assign to it, so this one owns
  struct Owned {
    at::Tensor tensor;
    operator at::Tensor&() const { return const_cast<at::Tensor&>(tensor); }
  };
  static Owned read(const Operator& op, size_t i, Reader& in) { return {borrow(handle(op, i, in))}; }
};

template <>
struct Form<const std::optional<at::Tensor>&> {
  static constexpr Argument argument{Want::Tensor, true, false};
  static OptionalBorrowed read(const Operator& op, size_t i, Reader& in) {
    if (none(in)) return {};
    payload(op, i, in, TG_TENSOR);
    tg_tensor h = in.word();
    if (h == 0) return {};
    return OptionalBorrowed(h);
  }
};

template <Want W>
struct Tensors : Plain<W> {
  static BorrowedList read(const Operator& op, size_t i, Reader& in) {
    uint64_t n = payload(op, i, in, TG_TENSORS);
    const uint64_t* handles = in.words(n);
    for (uint64_t k = 0; k < n; k++) {
      if (handles[k] == 0) undefined(op, i);
    }
    return BorrowedList(handles, n);
  }
};

template <>
struct Form<at::TensorList> : Tensors<Want::Tensors> {};

template <>
struct Form<const at::ITensorListRef&> : Tensors<Want::Tensors> {
  struct List {
    BorrowedList list;
    at::ITensorListRef ref{static_cast<at::TensorList>(list)};
    explicit List(BorrowedList&& l) : list(std::move(l)) {}
    List(List&& other) noexcept : list(std::move(other.list)) {}
    operator const at::ITensorListRef&() const { return ref; }
  };
  static List read(const Operator& op, size_t i, Reader& in) { return List(Tensors<Want::Tensors>::read(op, i, in)); }
};

template <>
struct Form<const c10::List<std::optional<at::Tensor>>&> : Plain<Want::OptTensors> {
  static c10::List<std::optional<at::Tensor>> read(const Operator& op, size_t i, Reader& in) {
    uint64_t n = payload(op, i, in, TG_TENSORS);
    const uint64_t* handles = in.words(n);
    c10::List<std::optional<at::Tensor>> list;
    list.reserve(n);
    for (uint64_t k = 0; k < n; k++) {
      if (handles[k] == 0) list.push_back(std::nullopt);
      else list.push_back(borrow(handles[k]));
    }
    return list;
  }
};

template <>
struct Form<const at::Scalar&> : Plain<Want::Number> {
  static at::Scalar read(const Operator& op, size_t i, Reader& in) {
    uint64_t tag = in.word() & 0xff;
    switch (tag) {
      case TG_INT:
        return static_cast<int64_t>(in.word());
      case TG_DOUBLE:
        return as_double(in.word());
      default:
        return number(op, i, tag, in);
    }
  }
};

template <>
struct Form<int64_t> : Plain<Want::Int> {
  static int64_t read(const Operator& op, size_t i, Reader& in) { return integer(op, i, in); }
};

template <>
struct Form<c10::SymInt> : Plain<Want::Int, true> {
  static c10::SymInt read(const Operator& op, size_t i, Reader& in) { return c10::SymInt(integer(op, i, in)); }
};

template <>
struct Form<bool> : Plain<Want::Bool> {
  static bool read(const Operator& op, size_t i, Reader& in) {
    payload(op, i, in, TG_BOOL);
    return in.word() != 0;
  }
};

template <>
struct Form<double> : Plain<Want::Double> {
  static double read(const Operator& op, size_t i, Reader& in) {
    uint64_t tag = in.word() & 0xff;
    switch (tag) {
      case TG_DOUBLE:
        return as_double(in.word());
      case TG_INT:
        return static_cast<double>(static_cast<int64_t>(in.word()));
      default:
        wrong(op, i, tag);
    }
  }
};

template <class Enum, Want W>
struct Enumeration : Plain<W> {
  static Enum read(const Operator& op, size_t i, Reader& in) {
    int64_t value = integer(op, i, in);
    if (value < 0 || value >= values_of(W)) out_of_range(op, i, value);
    return static_cast<Enum>(value);
  }
};

template <>
struct Form<at::ScalarType> : Enumeration<at::ScalarType, Want::DType> {};
template <>
struct Form<at::MemoryFormat> : Enumeration<at::MemoryFormat, Want::MemoryFormat> {};

template <>
struct Form<c10::string_view> : Plain<Want::String> {
  static c10::string_view read(const Operator& op, size_t i, Reader& in) {
    uint64_t n = payload(op, i, in, TG_STRING);
    return {reinterpret_cast<const char*>(in.words(n / 8 + (n % 8 != 0))), n};
  }
};

template <>
struct Form<at::IntArrayRef> : Plain<Want::Ints> {
  static at::IntArrayRef read(const Operator& op, size_t i, Reader& in) { return integers(op, i, in); }
};

template <>
struct Form<c10::SymIntArrayRef> : Plain<Want::Ints, true> {
  static c10::SymIntArrayRef read(const Operator& op, size_t i, Reader& in) { return c10::fromIntArrayRefSlow(integers(op, i, in)); }
};

template <>
struct Form<at::OptionalIntArrayRef> {
  static constexpr Argument argument{Want::Ints, true, false};
  static at::OptionalIntArrayRef read(const Operator& op, size_t i, Reader& in) {
    if (none(in)) return std::nullopt;
    return integers(op, i, in);
  }
};

template <class T>
struct Form<std::optional<T>> {
  static constexpr Argument argument{Form<T>::argument.want, true, Form<T>::argument.symbolic};
  static std::optional<T> read(const Operator& op, size_t i, Reader& in) {
    if (none(in)) return std::nullopt;
    return Form<T>::read(op, i, in);
  }
};

template <class Function>
struct Signature;

template <class Result, class... Parameters>
struct Signature<Result(Parameters...)> {
  using Handle = c10::TypedOperatorHandle<Result(Parameters...)>;
  static constexpr bool in_place = std::is_same_v<Result, at::Tensor&>;

  static bool choose(Operator& op) {
    static constexpr Argument arguments[] = {Form<Parameters>::argument...};
    if (!std::equal(std::begin(arguments), std::end(arguments), op.arguments.begin(), op.arguments.end())) return false;
    if (op.same.size() != 1 || (op.same[0] >= 0) != in_place) return false;
    if (op.handle.schema().returns()[0].type()->kind() != c10::TypeKind::TensorType) return false;
    try {
      op.typed = std::make_shared<Handle>(op.handle.typed<Result(Parameters...)>());
    } catch (const c10::Error&) {  // the kernels have another signature after all
      return false;
    }
    op.unboxed = run;
    return true;
  }

 private:
  static at::Tensor run(const Operator& op, Reader& in) { return run(op, in, std::index_sequence_for<Parameters...>()); }

  template <size_t... I>
  static at::Tensor run(const Operator& op, Reader& in, std::index_sequence<I...>) {
    // Braces: the arguments are read in their order.
    std::tuple<decltype(Form<Parameters>::read(op, I, in))...> args{Form<Parameters>::read(op, I, in)...};
    if (!in.done()) words_left_over(op);
    const auto& handle = *static_cast<const Handle*>(op.typed.get());
    if constexpr (in_place) {
      handle.call(static_cast<Parameters>(std::get<I>(args))...);
      return {};
    } else {
      return handle.call(static_cast<Parameters>(std::get<I>(args))...);
    }
  }
};

template <class... Functions>
void choose_from(Operator& op) {
  (void)(Signature<Functions>::choose(op) || ...);
}

using R = at::Tensor;
using T = const at::Tensor&;
using OptT = const std::optional<at::Tensor>&;
using S = const at::Scalar&;
using I = int64_t;
using Sym = c10::SymInt;
using Ints = at::IntArrayRef;
using Syms = c10::SymIntArrayRef;
using DType = at::ScalarType;
using MemoryFormat = at::MemoryFormat;
template <class X>
using Opt = std::optional<X>;

}  // namespace

void choose_unboxed(Operator& op) {
  choose_from<R(T), R(T, T), R(T, S), R(T, T, S), R(T, S, S), R(T, T, T),  // elementwise, matmul, where
              R(T, T, T, S, S),                                            // addmm
              R(T, T, OptT),                                               // linear
              R(T, Syms, OptT, OptT, double, bool),                        // layer_norm
              R(T, T, T, OptT, double, bool, Opt<double>, bool),           // scaled_dot_product_attention
              R(T, T, Sym, bool, bool),                                    // embedding
              R(T, c10::string_view),                                      // gelu
              R(T, I, Opt<DType>), R(T, Opt<DType>),                       // softmax, sum
              R(T, at::OptionalIntArrayRef, bool, Opt<DType>),             // sum over dimensions
              R(T, Opt<I>, bool),                                          // argmax
              R(T, I), R(T, I, I), R(T, I, Sym), R(T, I, Sym, Sym),        // unsqueeze, transpose, select, narrow
              R(T, I, Opt<Sym>, Opt<Sym>, Sym),                            // slice
              R(T, Syms), R(T, Syms, bool), R(T, Ints),                    // view, expand, permute
              R(T, I, T), R(T, I, T, bool),                                // index_select, gather
              R(T, const c10::List<std::optional<at::Tensor>>&),           // index
              R(T, MemoryFormat), R(T, Opt<MemoryFormat>),                 // contiguous, clone
              R(T, DType, bool, bool, Opt<MemoryFormat>),                  // to
              R(const at::ITensorListRef&, I), R(at::TensorList, I),       // cat, stack
              R&(R&), R&(R&, T), R&(R&, S), R&(R&, T, S), R&(R&, T, bool)  // in place
              >(op);
}

}  // namespace tg
