// Operators: one boxed call through the dispatcher runs them all.
#include <ATen/core/stack.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <sstream>

#include "autograd.hpp"
#include "operator.hpp"

namespace tg {
namespace {

using c10::IValue;
using torch::jit::Stack;

const char* name_of(Want w) {
  static const char* const names[] = {"Tensor",       "int",
                                      "ScalarType",   "Layout",
                                      "MemoryFormat", "QScheme",
                                      "float",        "Scalar",
                                      "bool",         "str",
                                      "Device",       "Generator",
                                      "int[]",        "float[]",
                                      "bool[]",       "Scalar[]",
                                      "str[]",        "Tensor[]",
                                      "Tensor?[]",    "Tensor[][]",
                                      "an object",    "objects",
                                      "Storage",      "Stream",
                                      "Any",          "a type without a C form"};
  return names[static_cast<int>(w)];
}

const char* name_of(uint64_t tag) {
  static const char* const names[] = {"None",    "Tensor", "int",      "float",  "bool",      "complex", "str",      "int[]",
                                      "float[]", "bool[]", "Tensor[]", "Device", "Generator", "list",    "a result", "an object"};
  return tag < sizeof(names) / sizeof(names[0]) ? names[tag] : "an unknown tag";
}

Want want_of(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType:
      return Want::Tensor;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return Want::Int;
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType:
      return Want::Double;
    case c10::TypeKind::NumberType:
      return Want::Number;
    case c10::TypeKind::BoolType:
    case c10::TypeKind::SymBoolType:
      return Want::Bool;
    case c10::TypeKind::StringType:
      return Want::String;
    case c10::TypeKind::DeviceObjType:
      return Want::Device;
    case c10::TypeKind::GeneratorType:
      return Want::Generator;
    case c10::TypeKind::ClassType:
      return Want::Object;
    case c10::TypeKind::StorageType:
      return Want::Storage;
    case c10::TypeKind::StreamObjType:
      return Want::Stream;
    case c10::TypeKind::AnyType:
      return Want::Any;
    case c10::TypeKind::ListType: {
      const auto& element = *type.expectRef<c10::ListType>().getElementType();
      if (element.kind() == c10::TypeKind::OptionalType) {
        const auto& inner = *element.expectRef<c10::OptionalType>().getElementType();
        return inner.kind() == c10::TypeKind::TensorType ? Want::OptTensors : Want::Unsupported;
      }
      switch (want_of(element)) {
        case Want::Tensor:
          return Want::Tensors;
        case Want::Int:
          return Want::Ints;
        case Want::Double:
          return Want::Doubles;
        case Want::Bool:
          return Want::Bools;
        case Want::Number:
          return Want::Numbers;
        case Want::String:
          return Want::Strings;
        case Want::Tensors:
          return Want::TensorLists;
        case Want::Object:
          return Want::Objects;
        default:
          return Want::Unsupported;
      }
    }
    default:
      return Want::Unsupported;
  }
}

// Enumerations are ints to callBoxed, which casts them unseen, and libtorch indexes tables with some.
Want enumeration_of(const c10::Type& real) {
  switch (real.kind()) {
    case c10::TypeKind::OptionalType:
      return enumeration_of(*real.expectRef<c10::OptionalType>().getElementType());
    case c10::TypeKind::ScalarTypeType:
      return Want::DType;
    case c10::TypeKind::LayoutType:
      return Want::Layout;
    case c10::TypeKind::MemoryFormatType:
      return Want::MemoryFormat;
    case c10::TypeKind::QSchemeType:
      return Want::QScheme;
    default:
      return Want::Int;
  }
}

bool symbolic(const c10::Type& real) {
  switch (real.kind()) {
    case c10::TypeKind::OptionalType:
      return symbolic(*real.expectRef<c10::OptionalType>().getElementType());
    case c10::TypeKind::ListType:
      return symbolic(*real.expectRef<c10::ListType>().getElementType());
    default:
      return real.kind() == c10::TypeKind::SymIntType;
  }
}

Argument argument_of(const c10::Argument& a) {
  const c10::TypePtr& type = a.type();  // the "fake" type: ScalarType and its kin are int here
  bool optional = type->kind() == c10::TypeKind::OptionalType;
  Want want = want_of(optional ? *type->expectRef<c10::OptionalType>().getElementType() : *type);
  if (want == Want::Int) want = enumeration_of(*a.real_type());
  return {want, optional, symbolic(*a.real_type())};
}

const std::string& argument_name(const Operator& op, size_t i) { return op.handle.schema().arguments().at(i).name(); }

std::string text(uint64_t n, Reader& in) {
  const uint64_t* at = in.words(n / 8 + (n % 8 != 0));
  return std::string(reinterpret_cast<const char*>(at), n);
}

}  // namespace

void wrong(const Operator& op, size_t i, uint64_t tag) {
  const Argument& a = op.arguments.at(i);
  throw ArgumentError(op.name + ": argument `" + argument_name(op, i) + "`: expected " + name_of(a.want) + (a.optional ? "?" : "") +
                      ", got " + name_of(tag));
}

void undefined(const Operator& op, size_t i) {
  throw ArgumentError(op.name + ": argument `" + argument_name(op, i) + "`: undefined tensor");
}

void out_of_range(const Operator& op, size_t i, int64_t value) {
  throw ArgumentError(op.name + ": argument `" + argument_name(op, i) + "`: " + std::to_string(value) + " is no " +
                      name_of(op.arguments.at(i).want));
}

void words_end_early() { throw ArgumentError("argument words end early"); }

void words_left_over(const Operator& op) { throw ArgumentError(op.name + ": argument words are left over"); }

at::Scalar number(const Operator& op, size_t i, uint64_t tag, Reader& in) {
  switch (tag) {
    case TG_INT:
      return static_cast<int64_t>(in.word());
    case TG_DOUBLE:
      return as_double(in.word());
    case TG_BOOL:
      return in.word() != 0;
    case TG_COMPLEX: {
      double re = as_double(in.word());
      return c10::complex<double>(re, as_double(in.word()));
    }
    default:
      wrong(op, i, tag);
  }
}

namespace {

c10::List<at::Tensor> tensor_list(const Operator& op, size_t i, uint64_t n, Reader& in) {
  const uint64_t* at = in.words(n);
  c10::List<at::Tensor> list;
  list.reserve(n);
  for (uint64_t k = 0; k < n; k++) {
    if (at[k] == 0) undefined(op, i);
    list.push_back(borrow(at[k]));
  }
  return list;
}

// The object that a handle is, if it is of the class that an argument takes.
const IValue& object(const Operator& op, size_t i, const c10::Type& want, uint64_t handle) {
  if (handle == 0) throw ArgumentError(op.name + ": argument `" + argument_name(op, i) + "`: object handle is 0");
  const auto& o = *reinterpret_cast<const IValue*>(handle);
  if (!o.type()->isSubtypeOf(want)) {
    throw ArgumentError(op.name + ": argument `" + argument_name(op, i) + "`: expected " + want.str() + ", got " + o.type()->str());
  }
  return o;
}

// An argument's type, of an optional one the type inside.
c10::TypePtr type_of(const Operator& op, size_t i) {
  c10::TypePtr type = op.handle.schema().arguments().at(i).type();
  return type->kind() == c10::TypeKind::OptionalType ? type->expectRef<c10::OptionalType>().getElementType() : type;
}

// A value for an argument that takes any.
IValue anything(const Operator& op, size_t i, uint64_t tag, uint64_t n, Reader& in) {
  switch (tag) {
    case TG_NONE:
      return IValue();
    case TG_TENSOR: {
      uint64_t handle = in.word();
      if (handle == 0) return IValue();
      return IValue(borrow(handle));
    }
    case TG_STRING:
      return IValue(text(n, in));
    case TG_OBJECT:
      return object(op, i, *c10::AnyType::get(), in.word());
    default:
      return IValue(number(op, i, tag, in));
  }
}

IValue decode(const Operator& op, size_t i, Reader& in) {
  const Argument& a = op.arguments[i];
  uint64_t head = in.word();
  uint64_t tag = head & 0xff, n = head >> 8;
  if (tag == TG_NONE) {
    // An undefined tensor is how C++ says None, but only an optional argument may be it.
    if (a.optional || a.want == Want::Any) return IValue();
    wrong(op, i, tag);
  }
  switch (a.want) {
    case Want::Tensor:
      if (tag == TG_TENSOR) {
        uint64_t handle = in.word();
        if (handle == 0) {
          if (a.optional) return IValue();
          undefined(op, i);
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
        out_of_range(op, i, value);
      }
      break;
    case Want::Double:
      if (tag == TG_DOUBLE) return IValue(as_double(in.word()));
      if (tag == TG_INT) return IValue(static_cast<double>(static_cast<int64_t>(in.word())));
      break;
    case Want::Number:
      if (tag == TG_INT || tag == TG_DOUBLE || tag == TG_BOOL || tag == TG_COMPLEX) return IValue(number(op, i, tag, in));
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
        for (uint64_t k = 0; k < n; k++) list.push_back(number(op, i, in.word() & 0xff, in));
        return IValue(std::move(list));
      }
      break;
    case Want::Strings:
      if (tag == TG_LIST) {
        c10::List<std::string> list;
        for (uint64_t k = 0; k < n; k++) {
          uint64_t h = in.word();
          if ((h & 0xff) != TG_STRING) wrong(op, i, h & 0xff);
          list.push_back(text(h >> 8, in));
        }
        return IValue(std::move(list));
      }
      break;
    case Want::Tensors:
    case Want::OptTensors:
      if (tag == TG_TENSORS) {
        if (a.want == Want::Tensors) return IValue(tensor_list(op, i, n, in));
        {
          const uint64_t* at = in.words(n);
          c10::List<std::optional<at::Tensor>> list;
          list.reserve(n);
          for (uint64_t k = 0; k < n; k++) {
            if (at[k] == 0) list.push_back(std::nullopt);
            else list.push_back(borrow(at[k]));
          }
          return IValue(std::move(list));
        }
      }
      break;
    case Want::TensorLists:
      if (tag == TG_LIST) {
        c10::List<c10::List<at::Tensor>> lists;
        for (uint64_t k = 0; k < n; k++) {
          uint64_t h = in.word();
          if ((h & 0xff) != TG_TENSORS) wrong(op, i, h & 0xff);
          lists.push_back(tensor_list(op, i, h >> 8, in));
        }
        return IValue(std::move(lists));
      }
      break;
    case Want::Object:
      if (tag == TG_OBJECT) return object(op, i, *type_of(op, i), in.word());
      break;
    case Want::Objects:
      if (tag == TG_LIST) {
        c10::TypePtr element = type_of(op, i)->expectRef<c10::ListType>().getElementType();
        c10::impl::GenericList list(element);
        for (uint64_t k = 0; k < n; k++) {
          uint64_t h = in.word();
          if ((h & 0xff) != TG_OBJECT) wrong(op, i, h & 0xff);
          list.push_back(object(op, i, *element, in.word()));
        }
        return IValue(std::move(list));
      }
      break;
    case Want::Storage:  // a tensor stands for its own
      if (tag == TG_TENSOR) {
        uint64_t handle = in.word();
        if (handle == 0) undefined(op, i);
        const at::Tensor& t = borrow(handle);
        if (!t.has_storage()) throw ArgumentError(op.name + ": argument `" + argument_name(op, i) + "`: a tensor without storage");
        return IValue(t.storage());
      }
      break;
    case Want::Stream:  // device type, device index, number
      if (tag == TG_INTS && n == 3) {
        const uint64_t* at = in.words(n);
        auto type = static_cast<int64_t>(at[0]), index = static_cast<int64_t>(at[1]);
        if (type < 0 || type >= static_cast<int64_t>(c10::DeviceType::COMPILE_TIME_MAX_DEVICE_TYPES) || index < -1 || index > 127) {
          throw ArgumentError(op.name + ": unknown device " + std::to_string(type) + ":" + std::to_string(index));
        }
        c10::Device device(static_cast<c10::DeviceType>(type), static_cast<c10::DeviceIndex>(index));
        return IValue(c10::Stream(c10::Stream::UNSAFE, device, static_cast<c10::StreamId>(at[2])));
      }
      break;
    case Want::Any:
      return anything(op, i, tag, n, in);
    case Want::Unsupported:
      break;
  }
  wrong(op, i, tag);
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
    for (const IValue* o : objects_) delete o;
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
  void object(IValue&& v) {
    objects_.push_back(nullptr);
    objects_.back() = new IValue(std::move(v));
    head(TG_OBJECT);
    word(reinterpret_cast<uint64_t>(objects_.back()));
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
    objects_.clear();
    return p;
  }

 private:
  uint64_t* p_;
  int64_t cap_;
  int64_t n_ = 0;
  int64_t made_ = 0;  // tensors in first_
  tg_tensor first_[8];
  std::vector<uint64_t> others_;
  std::vector<const IValue*> objects_;
  std::vector<uint64_t> more_;
};

// Bytes are told to the caller only for storage that no other tensor shares: they feed the memory
// pressure meter, which must not count a view.
uint64_t own_bytes(const at::Tensor& t) {
  if (!t.defined() || !t.has_storage()) return 0;
  const c10::Storage& s = t.storage();
  if (s.use_count() != 1 || s.device_type() == c10::DeviceType::Meta) return 0;
  return s.sym_nbytes().maybe_as_int().value_or(0);
}

void write_tensor(at::Tensor&& t, Writer& out) {
  uint64_t bytes = own_bytes(t);
  out.tensor(std::move(t));
  out.word(bytes);
}

void encode_tensor(at::Tensor&& t, Writer& out) {
  if (!t.defined()) return out.head(TG_NONE);
  out.head(TG_TENSOR);
  write_tensor(std::move(t), out);
}

// Writes a value. The elements of a list go to `rest`, the last one first.
void encode_head(IValue&& v, Writer& out, std::vector<IValue>& rest) {
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
  if (v.isObject()) return out.object(std::move(v));
  if (v.isGenericDict()) {  // keys and values in turn
    auto dict = std::move(v).toGenericDict();
    out.head(TG_LIST, 2 * dict.size());
    std::vector<IValue> pairs;
    for (const auto& entry : dict) {
      pairs.push_back(entry.key());
      pairs.push_back(entry.value());
    }
    rest.insert(rest.end(), std::make_move_iterator(pairs.rbegin()), std::make_move_iterator(pairs.rend()));
    return;
  }
  if (v.isList() || v.isTuple()) {
    std::vector<IValue> elements = v.isList() ? v.toListRef().vec() : v.toTupleRef().elements().vec();
    out.head(TG_LIST, elements.size());
    rest.insert(rest.end(), std::make_move_iterator(elements.rbegin()), std::make_move_iterator(elements.rend()));
    return;
  }
  throw ArgumentError("result of type " + v.tagKind() + " has no C form");
}

// Not by recursion: a C stack that overflows ends the process.
void encode(IValue&& v, Writer& out) {
  std::vector<IValue> rest;
  encode_head(std::move(v), out, rest);
  while (!rest.empty()) {
    IValue next = std::move(rest.back());
    rest.pop_back();
    encode_head(std::move(next), out, rest);
  }
}

std::string schema_text(const c10::FunctionSchema& schema) {
  std::ostringstream s;
  s << schema;
  return s.str();
}

std::string full_name(const char* name, const char* overload) { return *overload ? std::string(name) + "." + overload : std::string(name); }

const Operator& operator_of(tg_op op) {
  require(op != 0, "operator handle is 0");
  return *reinterpret_cast<const Operator*>(op);
}

// Marks a thread as inside a call that must not call back into Go.
class InCall {
 public:
  explicit InCall(ThreadState& state) : state_(state) { state_.boxed++; }
  ~InCall() { state_.boxed--; }
  InCall(const InCall&) = delete;
  InCall& operator=(const InCall&) = delete;

 private:
  ThreadState& state_;
};

// A stack to build a call on: its memory is kept for the thread's next call. It is taken for the
// length of a call, so that a call within gets a fresh one.
class CallStack {
 public:
  CallStack() { stack_.swap(kept()); }
  ~CallStack() {
    stack_.clear();
    if (stack_.capacity() <= 64) stack_.swap(kept());
  }
  Stack* operator->() { return &stack_; }
  Stack& operator*() { return stack_; }

 private:
  static Stack& kept() {
    static thread_local Stack stack;
    return stack;
  }
  Stack stack_;
};

constexpr int64_t one_result = 5;  // words of a result that is a tensor, with what goes before it

void call_unboxed(const Operator& o, Reader& in, uint64_t scope, uint64_t* rets) {
  at::Tensor result = o.unboxed(o, in);
  rets[0] = scope;
  rets[1] = 1;
  if (o.same[0] >= 0) {
    rets[2] = TG_SAME;
    rets[3] = static_cast<uint64_t>(o.same[0]);
  } else if (!result.defined()) {
    rets[2] = TG_NONE;
  } else {
    rets[2] = TG_TENSOR;
    rets[4] = own_bytes(result);
    rets[3] = release(std::move(result));
  }
}

void call_boxed(const Operator& o, Reader& in, uint64_t scope, Writer& out) {
  CallStack stack;
  stack->reserve(std::max<size_t>(o.arguments.size(), o.same.size()));
  for (size_t i = 0; i < o.arguments.size(); i++) stack->push_back(decode(o, i, in));
  if (!in.done()) words_left_over(o);
  o.handle.callBoxed(&*stack);
  out.word(scope);
  out.word(stack->size());
  for (size_t i = 0; i < stack->size(); i++) {
    if (i < o.same.size() && o.same[i] >= 0) {
      out.head(TG_SAME);
      out.word(static_cast<uint64_t>(o.same[i]));
    } else {
      encode(std::move((*stack)[i]), out);
    }
  }
}

void call_any(tg_op op, const uint64_t* args, int64_t words, int64_t nargs, uint64_t* rets, int64_t cap, uint64_t* more) {
  const Operator& o = operator_of(op);
  require(words >= 0 && (words == 0 || args != nullptr), "call: arguments are NULL");
  require(rets != nullptr && cap >= 2 && more != nullptr, "call: no room for results");
  *more = 0;
  if (nargs != static_cast<int64_t>(o.arguments.size())) {
    throw ArgumentError(o.name + ": expected " + std::to_string(o.arguments.size()) + " arguments, got " + std::to_string(nargs));
  }
  uint64_t scope = thread_state().scope;
  Reader in(args, words);
  if (o.unboxed != nullptr && cap >= one_result) return call_unboxed(o, in, scope, rets);
  Writer out(rets, cap);
  call_boxed(o, in, scope, out);
  *more = reinterpret_cast<uint64_t>(out.done());
}

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
      auto fresh = std::make_unique<Operator>(Operator{*handle, full_name(name, overload), {}, {}, nullptr, nullptr});
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
      choose_unboxed(*fresh);
      op = fresh.release();
    }
    *out = reinterpret_cast<tg_op>(op);
  });
}

int32_t object_free(tg_object o, tg_error* err) noexcept {
  return guarded(err, [&] { delete reinterpret_cast<const c10::IValue*>(o); });
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
    InCall in_call(thread_state());
    call_any(op, args, words, nargs, rets, cap, more);
  });
}

int32_t call_open(tg_op op, const uint64_t* args, int64_t words, int64_t nargs, uint64_t* rets, int64_t cap, uint64_t* more,
                  const char* site, tg_error* err) noexcept {
  return guarded(err, [&] {
    AtSite at(site);
    call_any(op, args, words, nargs, rets, cap, more);
  });
}

}  // namespace tg
