// Operators: one boxed call through the dispatcher runs them all.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <sstream>

#include "common.hpp"

namespace tg {
namespace {

using c10::IValue;
using torch::jit::Stack;

// What an argument takes, read off the schema once. callBoxed trusts the tags of its stack, so
// every value is checked against this before the call.
enum class Want : uint8_t {
  Tensor, Int, DType, Layout, MemoryFormat, QScheme, Double, Number, Bool, String, Device, Generator,
  Ints, Doubles, Bools, Numbers, Strings, Tensors, OptTensors, Unsupported
};

struct Argument {
  Want want;
  bool optional;
};

class Reader;
struct Operator;

// Calls an operator of a frequent C++ signature without boxing its arguments.
using Unboxed = at::Tensor (*)(const Operator& op, Reader& in);

struct Operator {
  c10::OperatorHandle handle;
  std::string name;
  std::vector<Argument> arguments;
  std::vector<int16_t> same;  // for each result: the argument it is, written to, or -1
  Unboxed unboxed = nullptr;
};

const char* name_of(Want w) {
  static const char* const names[] = {"Tensor", "int", "ScalarType", "Layout", "MemoryFormat", "QScheme", "float", "Scalar", "bool", "str", "Device", "Generator",
                                      "int[]",  "float[]", "bool[]", "Scalar[]", "str[]", "Tensor[]", "Tensor?[]", "a type without a C form"};
  return names[static_cast<int>(w)];
}

const char* name_of(uint64_t tag) {
  static const char* const names[] = {"None",  "Tensor",  "int",    "float",    "bool",   "complex",   "str",  "int[]",
                                      "float[]", "bool[]", "Tensor[]", "Device", "Generator", "list"};
  return tag < sizeof(names) / sizeof(names[0]) ? names[tag] : "an unknown tag";
}

Want want_of(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType: return Want::Tensor;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType: return Want::Int;
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType: return Want::Double;
    case c10::TypeKind::NumberType: return Want::Number;
    case c10::TypeKind::BoolType:
    case c10::TypeKind::SymBoolType: return Want::Bool;
    case c10::TypeKind::StringType: return Want::String;
    case c10::TypeKind::DeviceObjType: return Want::Device;
    case c10::TypeKind::GeneratorType: return Want::Generator;
    case c10::TypeKind::ListType: {
      const auto& element = *type.expectRef<c10::ListType>().getElementType();
      if (element.kind() == c10::TypeKind::OptionalType) {
        const auto& inner = *element.expectRef<c10::OptionalType>().getElementType();
        return inner.kind() == c10::TypeKind::TensorType ? Want::OptTensors : Want::Unsupported;
      }
      switch (want_of(element)) {
        case Want::Tensor: return Want::Tensors;
        case Want::Int: return Want::Ints;
        case Want::Double: return Want::Doubles;
        case Want::Bool: return Want::Bools;
        case Want::Number: return Want::Numbers;
        case Want::String: return Want::Strings;
        default: return Want::Unsupported;
      }
    }
    default: return Want::Unsupported;
  }
}

// Enumerations are ints to callBoxed, which casts them unseen, and libtorch indexes tables with some.
Want enumeration_of(const c10::Type& real) {
  switch (real.kind()) {
    case c10::TypeKind::OptionalType: return enumeration_of(*real.expectRef<c10::OptionalType>().getElementType());
    case c10::TypeKind::ScalarTypeType: return Want::DType;
    case c10::TypeKind::LayoutType: return Want::Layout;
    case c10::TypeKind::MemoryFormatType: return Want::MemoryFormat;
    case c10::TypeKind::QSchemeType: return Want::QScheme;
    default: return Want::Int;
  }
}

int64_t values_of(Want w) {
  switch (w) {
    case Want::DType: return static_cast<int64_t>(c10::ScalarType::Undefined);
    case Want::Layout: return static_cast<int64_t>(c10::Layout::NumOptions);
    case Want::MemoryFormat: return static_cast<int64_t>(c10::MemoryFormat::NumOptions);
    default: return c10::COMPILE_TIME_NUM_QSCHEMES;
  }
}

Argument argument_of(const c10::Argument& a) {
  const c10::TypePtr& type = a.type();  // the "fake" type: ScalarType and its kin are int here
  bool optional = type->kind() == c10::TypeKind::OptionalType;
  Want want = want_of(optional ? *type->expectRef<c10::OptionalType>().getElementType() : *type);
  if (want == Want::Int) want = enumeration_of(*a.real_type());
  return {want, optional};
}

// Reads values from words, never past the end.
class Reader {
 public:
  Reader(const uint64_t* words, int64_t n) : p_(words), end_(words + n) {}

  uint64_t word() {
    if (p_ == end_) throw ArgumentError("argument words end early");
    return *p_++;
  }
  const uint64_t* words(uint64_t n) {
    if (n > static_cast<uint64_t>(end_ - p_)) throw ArgumentError("argument words end early");
    const uint64_t* at = p_;
    p_ += n;
    return at;
  }
  bool done() const { return p_ == end_; }

 private:
  const uint64_t* p_;
  const uint64_t* end_;
};

double as_double(uint64_t w) {
  double d;
  std::memcpy(&d, &w, sizeof d);
  return d;
}

IValue scalar(uint64_t tag, Reader& in) {
  switch (tag) {
    case TG_INT: return IValue(static_cast<int64_t>(in.word()));
    case TG_DOUBLE: return IValue(as_double(in.word()));
    case TG_BOOL: return IValue(in.word() != 0);
    case TG_COMPLEX: {
      double re = as_double(in.word());
      return IValue(c10::complex<double>(re, as_double(in.word())));
    }
    default: throw ArgumentError(std::string("expected Scalar, got ") + name_of(tag));
  }
}

std::string text(uint64_t n, Reader& in) {
  const uint64_t* at = in.words(n / 8 + (n % 8 != 0));
  return std::string(reinterpret_cast<const char*>(at), n);
}

[[noreturn]] void wrong(const Operator& op, size_t i, Want want, bool optional, uint64_t tag) {
  const auto& schema = op.handle.schema();
  std::string what = op.name + ": argument ";
  if (i < schema.arguments().size()) what += "`" + schema.arguments()[i].name() + "`";
  what += std::string(": expected ") + name_of(want) + (optional ? "?" : "") + ", got " + name_of(tag);
  throw ArgumentError(what);
}

IValue decode(const Operator& op, size_t i, Reader& in) {
  const Argument& a = op.arguments[i];
  uint64_t head = in.word();
  uint64_t tag = head & 0xff, n = head >> 8;
  if (tag == TG_NONE) {
    // An undefined tensor is how C++ says None, but only an optional argument may be it.
    if (a.optional) return IValue();
    wrong(op, i, a.want, a.optional, tag);
  }
  switch (a.want) {
    case Want::Tensor:
      if (tag == TG_TENSOR) {
        uint64_t handle = in.word();
        if (handle == 0) {
          if (a.optional) return IValue();
          throw ArgumentError(op.name + ": argument `" + op.handle.schema().arguments()[i].name() + "`: undefined tensor");
        }
        return IValue(borrow(handle));
      }
      break;
    case Want::Int:
      if (tag == TG_INT) return IValue(static_cast<int64_t>(in.word()));
      break;
    case Want::DType:
    case Want::Layout:
    case Want::MemoryFormat:
    case Want::QScheme:
      if (tag == TG_INT) {
        auto value = static_cast<int64_t>(in.word());
        if (value >= 0 && value < values_of(a.want)) return IValue(value);
        throw ArgumentError(op.name + ": argument `" + op.handle.schema().arguments()[i].name() + "`: " + std::to_string(value) +
                            " is no " + name_of(a.want));
      }
      break;
    case Want::Double:
      if (tag == TG_DOUBLE) return IValue(as_double(in.word()));
      if (tag == TG_INT) return IValue(static_cast<double>(static_cast<int64_t>(in.word())));
      break;
    case Want::Number:
      if (tag == TG_INT || tag == TG_DOUBLE || tag == TG_BOOL || tag == TG_COMPLEX) return scalar(tag, in);
      break;
    case Want::Bool:
      if (tag == TG_BOOL) return IValue(in.word() != 0);
      break;
    case Want::String:
      if (tag == TG_STRING) return IValue(text(n, in));
      break;
    case Want::Device:
      if (tag == TG_DEVICE) {
        auto type = static_cast<int64_t>(in.word());
        auto index = static_cast<int64_t>(in.word());
        if (type < 0 || type >= static_cast<int64_t>(c10::DeviceType::COMPILE_TIME_MAX_DEVICE_TYPES) || index < -1 || index > 127) {
          throw ArgumentError(op.name + ": unknown device " + std::to_string(type) + ":" + std::to_string(index));
        }
        return IValue(c10::Device(static_cast<c10::DeviceType>(type), static_cast<c10::DeviceIndex>(index)));
      }
      break;
    case Want::Generator:
      if (tag == TG_GENERATOR) {
        auto* impl = reinterpret_cast<c10::GeneratorImpl*>(in.word());
        if (impl == nullptr) return IValue();
        return IValue(at::Generator(c10::intrusive_ptr<c10::GeneratorImpl>::reclaim_copy(impl)));
      }
      break;
    case Want::Ints:
      if (tag == TG_INTS) return IValue(at::IntArrayRef(reinterpret_cast<const int64_t*>(in.words(n)), n));
      break;
    case Want::Doubles:
      if (tag == TG_DOUBLES) return IValue(at::ArrayRef<double>(reinterpret_cast<const double*>(in.words(n)), n));
      break;
    case Want::Bools:
      if (tag == TG_BOOLS) {
        const uint64_t* at = in.words(n);
        c10::List<bool> list;
        list.reserve(n);
        for (uint64_t k = 0; k < n; k++) list.push_back(at[k] != 0);
        return IValue(std::move(list));
      }
      break;
    case Want::Numbers:
      if (tag == TG_LIST) {
        c10::List<at::Scalar> list;
        for (uint64_t k = 0; k < n; k++) list.push_back(scalar(in.word() & 0xff, in).toScalar());
        return IValue(std::move(list));
      }
      break;
    case Want::Strings:
      if (tag == TG_LIST) {
        c10::List<std::string> list;
        for (uint64_t k = 0; k < n; k++) {
          uint64_t h = in.word();
          if ((h & 0xff) != TG_STRING) wrong(op, i, Want::String, false, h & 0xff);
          list.push_back(text(h >> 8, in));
        }
        return IValue(std::move(list));
      }
      break;
    case Want::Tensors:
    case Want::OptTensors:
      if (tag == TG_TENSORS) {
        const uint64_t* at = in.words(n);
        if (a.want == Want::OptTensors) {
          c10::List<std::optional<at::Tensor>> list;
          list.reserve(n);
          for (uint64_t k = 0; k < n; k++) {
            if (at[k] == 0) list.push_back(std::nullopt);
            else list.push_back(borrow(at[k]));
          }
          return IValue(std::move(list));
        }
        c10::List<at::Tensor> list;
        list.reserve(n);
        for (uint64_t k = 0; k < n; k++) {
          if (at[k] == 0) {
            throw ArgumentError(op.name + ": argument `" + op.handle.schema().arguments()[i].name() + "`: undefined tensor at " + std::to_string(k));
          }
          list.push_back(borrow(at[k]));
        }
        return IValue(std::move(list));
      }
      break;
    case Want::Unsupported: break;
  }
  wrong(op, i, a.want, a.optional, tag);
}

// Writes results as words: into the caller's buffer while they fit, else into memory of its own.
class Writer {
 public:
  Writer(uint64_t* words, int64_t cap) : p_(words), cap_(cap) {}
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  // Results that the caller won't get are given up.
  ~Writer() {
    for (int64_t i = 0; i < std::min<int64_t>(made_, std::size(first_)); i++) take(first_[i]);
    for (tg_tensor t : others_) take(t);
  }

  void word(uint64_t w) {
    if (more_.empty() && n_ < cap_) {
      p_[n_++] = w;
      return;
    }
    if (more_.empty()) more_.assign(p_, p_ + n_);
    more_.push_back(w);
  }
  void head(uint64_t tag, uint64_t n = 0) { word(tag | n << 8); }
  void tensor(at::Tensor&& t) {
    if (made_ >= static_cast<int64_t>(std::size(first_))) {
      others_.push_back(0);
      word(others_.back() = release(std::move(t)));
    } else {
      word(first_[made_++] = release(std::move(t)));
    }
  }
  void real(double d) {
    uint64_t w;
    std::memcpy(&w, &d, sizeof w);
    word(w);
  }
  // Hands the results to the caller. The malloc'ed copy of everything, or NULL if it all went into
  // the buffer.
  uint64_t* done() {
    uint64_t* p = nullptr;
    if (!more_.empty()) {
      p = static_cast<uint64_t*>(std::malloc((more_.size() + 1) * sizeof(uint64_t)));
      if (p == nullptr) throw std::bad_alloc();
      p[0] = more_.size();
      std::memcpy(p + 1, more_.data(), more_.size() * sizeof(uint64_t));
    }
    made_ = 0;
    others_.clear();
    return p;
  }

 private:
  uint64_t* p_;
  int64_t cap_;
  int64_t n_ = 0;
  int64_t made_ = 0;      // tensors in first_
  tg_tensor first_[8];
  std::vector<uint64_t> others_;
  std::vector<uint64_t> more_;
};

void write_tensor(at::Tensor&& t, Writer& out) {
  // Bytes are told to the caller only for storage that no other tensor shares: they feed the
  // memory pressure meter, which must not count a view.
  uint64_t bytes = 0;
  if (t.defined() && t.has_storage()) {
    const c10::Storage& s = t.storage();
    if (s.use_count() == 1 && s.device_type() != c10::DeviceType::Meta) bytes = s.sym_nbytes().maybe_as_int().value_or(0);
  }
  out.tensor(std::move(t));
  out.word(bytes);
}

void encode_tensor(at::Tensor&& t, Writer& out) {
  if (!t.defined()) return out.head(TG_NONE);
  out.head(TG_TENSOR);
  write_tensor(std::move(t), out);
}

void encode(IValue&& v, Writer& out) {
  if (v.isTensor()) return encode_tensor(std::move(v).toTensor(), out);
  if (v.isNone()) return out.head(TG_NONE);
  if (v.isInt()) {
    out.head(TG_INT);
    return out.word(static_cast<uint64_t>(v.toInt()));
  }
  if (v.isDouble()) {
    out.head(TG_DOUBLE);
    return out.real(v.toDouble());
  }
  if (v.isBool()) {
    out.head(TG_BOOL);
    return out.word(v.toBool());
  }
  if (v.isComplexDouble()) {
    auto z = v.toComplexDouble();
    out.head(TG_COMPLEX);
    out.real(z.real());
    return out.real(z.imag());
  }
  if (v.isString()) {
    const std::string& s = v.toStringRef();
    out.head(TG_STRING, s.size());
    for (size_t i = 0; i < s.size(); i += 8) {
      uint64_t w = 0;
      std::memcpy(&w, s.data() + i, std::min<size_t>(8, s.size() - i));
      out.word(w);
    }
    return;
  }
  if (v.isSymInt()) {
    out.head(TG_INT);
    return out.word(static_cast<uint64_t>(v.toSymInt().guard_int(__FILE__, __LINE__)));
  }
  if (v.isTensorList()) {
    auto list = std::move(v).toTensorVector();
    out.head(TG_TENSORS, list.size());
    for (auto& t : list) write_tensor(std::move(t), out);
    return;
  }
  if (v.isDevice()) {
    auto d = v.toDevice();
    out.head(TG_DEVICE);
    out.word(static_cast<uint64_t>(d.type()));
    return out.word(static_cast<uint64_t>(static_cast<int64_t>(d.index())));
  }
  if (v.isIntList()) {
    auto list = v.toIntVector();
    out.head(TG_INTS, list.size());
    for (int64_t x : list) out.word(static_cast<uint64_t>(x));
    return;
  }
  if (v.isDoubleList()) {
    auto list = v.toDoubleVector();
    out.head(TG_DOUBLES, list.size());
    for (double x : list) out.real(x);
    return;
  }
  if (v.isList() || v.isTuple()) {
    std::vector<IValue> elements = v.isList() ? v.toListRef().vec() : v.toTupleRef().elements().vec();
    out.head(TG_LIST, elements.size());
    for (auto& e : elements) encode(std::move(e), out);
    return;
  }
  throw ArgumentError("result of type " + v.tagKind() + " has no C form");
}

// Boxing costs 0.2 us, which a small operator feels; so the signatures that most of them have are
// called as they are.
at::Tensor tensor_argument(const Operator& op, size_t i, Reader& in) {
  uint64_t head = in.word();
  if ((head & 0xff) != TG_TENSOR) wrong(op, i, Want::Tensor, false, head & 0xff);
  uint64_t handle = in.word();
  if (handle == 0) throw ArgumentError(op.name + ": argument `" + op.handle.schema().arguments()[i].name() + "`: undefined tensor");
  return borrow(handle);
}

at::Scalar scalar_argument(const Operator& op, size_t i, Reader& in) {
  uint64_t tag = in.word() & 0xff;
  switch (tag) {
    case TG_INT: return at::Scalar(static_cast<int64_t>(in.word()));
    case TG_DOUBLE: return at::Scalar(as_double(in.word()));
    case TG_BOOL:
    case TG_COMPLEX: return scalar(tag, in).toScalar();
    default: wrong(op, i, Want::Number, false, tag);
  }
}

template <class Arg>
struct Plain;
template <>
struct Plain<const at::Tensor&> {
  static constexpr Want want = Want::Tensor;
  static at::Tensor read(const Operator& op, size_t i, Reader& in) { return tensor_argument(op, i, in); }
};
template <>
struct Plain<const at::Scalar&> {
  static constexpr Want want = Want::Number;
  static at::Scalar read(const Operator& op, size_t i, Reader& in) { return scalar_argument(op, i, in); }
};

template <class... Args>
struct Signature {
  using Function = at::Tensor(Args...);

  static bool fits(const Operator& op) {
    if (op.arguments.size() != sizeof...(Args) || op.same.size() != 1 || op.same[0] >= 0) return false;
    if (op.handle.schema().returns()[0].type()->kind() != c10::TypeKind::TensorType) return false;
    size_t i = 0;
    bool same = ((op.arguments[i].want == Plain<Args>::want && !op.arguments[i].optional && (i++, true)) && ...);
    if (!same) return false;
    try {
      op.handle.typed<Function>();  // throws if the kernels have another signature, or were registered boxed
      return true;
    } catch (const c10::Error&) {
      return false;
    }
  }

  static at::Tensor run(const Operator& op, Reader& in) {
    return run(op, in, std::index_sequence_for<Args...>());
  }

 private:
  template <size_t... I>
  static at::Tensor run(const Operator& op, Reader& in, std::index_sequence<I...>) {
    // Braces: the arguments are read in their order.
    std::tuple<decltype(Plain<Args>::read(op, I, in))...> args{Plain<Args>::read(op, I, in)...};
    if (!in.done()) throw ArgumentError(op.name + ": argument words are left over");
    return op.handle.typed<Function>().call(std::get<I>(args)...);
  }
};

using T = const at::Tensor&;
using S = const at::Scalar&;

template <class... Signatures>
Unboxed unboxed_for(const Operator& op) {
  Unboxed found = nullptr;
  ((found == nullptr && Signatures::fits(op) ? void(found = Signatures::run) : void()), ...);
  return found;
}

std::string schema_text(const c10::FunctionSchema& schema) {
  std::ostringstream s;
  s << schema;
  return s.str();
}

std::string full_name(const char* name, const char* overload) {
  return *overload ? std::string(name) + "." + overload : std::string(name);
}

const Operator& operator_of(tg_op op) {
  require(op != 0, "operator handle is 0");
  return *reinterpret_cast<const Operator*>(op);
}

// A stack to build a call on: its memory is kept for the thread's next call. It is taken for the
// length of a call, so that a call within gets a fresh one.
class CallStack {
 public:
  CallStack() : state_(thread_state()) {
    state_.boxed++;
    stack_.swap(kept());
  }
  ~CallStack() {
    state_.boxed--;
    stack_.clear();
    if (stack_.capacity() <= 64) stack_.swap(kept());
  }
  Stack* operator->() { return &stack_; }
  Stack& operator*() { return stack_; }

 private:
  ThreadState& state_;
  static Stack& kept() {
    static thread_local Stack stack;
    return stack;
  }
  Stack stack_;
};

}  // namespace

int32_t op_find(const char* name, const char* overload, const char* schema, tg_op* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(name != nullptr && overload != nullptr && out != nullptr, "op_find: NULL argument");
    auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
    if (!handle) throw ArgumentError("no operator " + full_name(name, overload), TG_E_NO_OPERATOR);
    const auto& s = handle->schema();
    if (schema != nullptr) {
      std::string have = schema_text(s);
      if (have != schema) {
        throw ArgumentError("operator has another schema: this libtorch has `" + have + "`, this torchgo was built for `" + schema + "`",
                            TG_E_SCHEMA);
      }
    }
    static std::mutex mutex;
    static auto& known = *new std::map<std::string, Operator*>();  // never freed: handles stay good until exit
    std::lock_guard<std::mutex> lock(mutex);
    Operator*& op = known[full_name(name, overload)];
    if (op == nullptr) {
      auto fresh = std::make_unique<Operator>(Operator{*handle, full_name(name, overload), {}, {}, nullptr});
      for (const auto& a : s.arguments()) fresh->arguments.push_back(argument_of(a));
      for (const auto& r : s.returns()) {
        int16_t same = -1;
        if (r.alias_info() != nullptr && r.alias_info()->isWrite() && r.type()->kind() == c10::TypeKind::TensorType) {
          for (size_t i = 0; i < s.arguments().size() && same < 0; i++) {
            const auto* info = s.arguments()[i].alias_info();
            if (info != nullptr && info->isWrite() && info->beforeSets() == r.alias_info()->beforeSets()) same = static_cast<int16_t>(i);
          }
        }
        fresh->same.push_back(same);
      }
      fresh->unboxed = unboxed_for<Signature<T>, Signature<T, T>, Signature<T, S>, Signature<T, T, S>, Signature<T, T, T>>(*fresh);
      op = fresh.release();
    }
    *out = reinterpret_cast<tg_op>(op);
  });
}

int32_t op_schema(tg_op op, char** out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "op_schema: NULL argument");
    *out = owned(schema_text(operator_of(op).handle.schema()));
  });
}

int32_t op_list(char** out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "op_list: NULL argument");
    std::vector<std::string> lines;
    for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
      if (auto handle = c10::Dispatcher::singleton().findSchema(name)) lines.push_back(schema_text(handle->schema()));
    }
    std::sort(lines.begin(), lines.end());
    std::string all;
    for (const auto& l : lines) all += l + "\n";
    *out = owned(all);
  });
}

int32_t call(tg_op op, const uint64_t* args, int64_t words, int64_t nargs, uint64_t* rets, int64_t cap, uint64_t* more,
             tg_error* err) noexcept {
  return guarded(err, [&] {
    const Operator& o = operator_of(op);
    require(words >= 0 && (words == 0 || args != nullptr), "call: arguments are NULL");
    require(rets != nullptr && cap >= 2 && more != nullptr, "call: no room for results");
    *more = 0;
    if (nargs != static_cast<int64_t>(o.arguments.size())) {
      throw ArgumentError(o.name + ": expected " + std::to_string(o.arguments.size()) + " arguments, got " + std::to_string(nargs));
    }
    Reader in(args, words);
    Writer out(rets, cap);
    if (o.unboxed != nullptr) {
      at::Tensor result = o.unboxed(o, in);
      out.word(thread_state().scope);
      out.word(1);
      encode_tensor(std::move(result), out);
      *more = reinterpret_cast<uint64_t>(out.done());
      return;
    }
    CallStack stack;
    stack->reserve(std::max<size_t>(o.arguments.size(), o.same.size()));
    for (size_t i = 0; i < o.arguments.size(); i++) stack->push_back(decode(o, i, in));
    if (!in.done()) throw ArgumentError(o.name + ": argument words are left over");
    o.handle.callBoxed(&*stack);
    out.word(thread_state().scope);
    out.word(stack->size());
    for (size_t i = 0; i < stack->size(); i++) {
      if (i < o.same.size() && o.same[i] >= 0) {
        out.head(TG_SAME);
        out.word(static_cast<uint64_t>(o.same[i]));
      } else {
        encode(std::move((*stack)[i]), out);
      }
    }
    *more = reinterpret_cast<uint64_t>(out.done());
  });
}

}  // namespace tg
