// What the shim's files share: guarding a body against exceptions, and handles.
#pragma once

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "torchgo.h"

namespace tg {

// State of a thread. An unpinned thread has the default values.
struct ThreadState {
  uint64_t scope = 0;
  int64_t busy = 0;
  int64_t boxed = 0;           // > 0 inside a call that must not call back into Go
  const char* site = nullptr;  // where in the program the call is, if somebody wants to know
};
ThreadState& thread_state() noexcept;

// Modes that are set until guard_leave deletes it.
struct Guard {
  Guard() = default;
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  virtual ~Guard() = default;
};

inline tg_guard hand(Guard* g) { return reinterpret_cast<tg_guard>(g); }

// An id that turns up in `released` when the object goes.
class Token {
 public:
  explicit Token(uint64_t id) : id_(id) {}
  Token(const Token&) = delete;
  Token& operator=(const Token&) = delete;
  ~Token();
  uint64_t id() const { return id_; }
  // Leaves the id to the caller; 0 the second time.
  uint64_t give() { return id_.exchange(0); }

 private:
  std::atomic<uint64_t> id_;
};

// A Go callback failed. The cause is Go's error.
class CallbackError : public c10::Error {
 public:
  CallbackError(const std::string& message, uint64_t cause)
      : c10::Error({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, message), cause(std::make_shared<Token>(cause)) {}
  std::shared_ptr<Token> cause;
};

// An error with a word about where in the program it comes from.
class AnnotatedError : public std::exception {
 public:
  AnnotatedError(std::exception_ptr error, std::string note) : error(std::move(error)), note(std::move(note)) {}
  const char* what() const noexcept override { return note.c_str(); }
  std::exception_ptr error;
  std::string note;
};

// The shim refuses an argument.
class ArgumentError : public std::exception {
 public:
  explicit ArgumentError(std::string what, tg_kind kind = TG_E_ARGUMENT) : what_(std::move(what)), kind_(kind) {}
  const char* what() const noexcept override { return what_.c_str(); }
  tg_kind kind() const noexcept { return kind_; }

 private:
  std::string what_;
  tg_kind kind_;
};

inline void require(bool ok, const char* what) {
  if (!ok) throw ArgumentError(what);
}

inline c10::Device device_of(int32_t type, int32_t index) {
  require(type >= 0 && type < static_cast<int32_t>(c10::DeviceType::COMPILE_TIME_MAX_DEVICE_TYPES), "unknown device type");
  require(index >= -1 && index <= 127, "device index is out of range");
  return c10::Device(static_cast<c10::DeviceType>(type), static_cast<c10::DeviceIndex>(index));
}

// A device that is there, ready and with its index; TG_E_NO_DEVICE where it isn't.
c10::Device present(int32_t type, int32_t index);

// Fills *err from the exception in flight. Call it in a catch block only.
int32_t fail(tg_error* err) noexcept;

template <class Body>
int32_t guarded(tg_error* err, Body&& body) noexcept {
  if (err == nullptr) return TG_E_ARGUMENT;
  try {
    body();
    return TG_OK;
  } catch (...) {
    return fail(err);
  }
}

inline char* owned(const std::string& s) {
  char* p = static_cast<char*>(std::malloc(s.size() + 1));
  if (p == nullptr) throw std::bad_alloc();
  std::memcpy(p, s.c_str(), s.size() + 1);
  return p;
}

// A borrowed handle as a Tensor; the undefined one for 0.
inline at::Tensor borrow(tg_tensor handle) {
  if (handle == 0) return at::Tensor();
  return at::Tensor(
      c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim_copy(reinterpret_cast<c10::TensorImpl*>(handle)));
}

// A handle that the caller owned; it is given up.
inline at::Tensor take(tg_tensor handle) {
  if (handle == 0) return at::Tensor();
  return at::Tensor(c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim(reinterpret_cast<c10::TensorImpl*>(handle)));
}

inline at::Tensor defined(tg_tensor handle) {
  require(handle != 0, "undefined tensor");
  return borrow(handle);
}

// The handle of a tensor that the caller now owns; 0 for the undefined one.
inline tg_tensor release(at::Tensor&& t) {
  if (!t.defined()) return 0;
  return reinterpret_cast<tg_tensor>(t.unsafeReleaseTensorImpl());
}

inline std::vector<at::Tensor> borrow_all(const uint64_t* words, int64_t n, bool allow_undefined) {
  require(n >= 0 && n <= (int64_t(1) << 32), "number of tensors is out of range");
  require(n == 0 || words != nullptr, "list of tensors is NULL");
  std::vector<at::Tensor> out;
  out.reserve(n);
  for (int64_t i = 0; i < n; i++) {
    require(allow_undefined || words[i] != 0, "undefined tensor in a list");
    out.push_back(borrow(words[i]));
  }
  return out;
}

// The functions of the table; each file defines some of them.
#define TG_DECLARE(name, params, args) int32_t name params noexcept;
TG_FUNCTIONS(TG_DECLARE)
#undef TG_DECLARE

}  // namespace tg
