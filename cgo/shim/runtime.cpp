// The table, errors, threads, random numbers, devices.
#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/version.h>

#include "common.hpp"

namespace tg {
namespace {

void fill(tg_error* err, tg_kind kind, const char* message, const char* backtrace) noexcept {
  err->kind = kind;
  // strdup gives NULL when memory is short; the kind is then all there is.
  err->message = reinterpret_cast<uintptr_t>(strdup(message));
  err->backtrace = reinterpret_cast<uintptr_t>(backtrace ? strdup(backtrace) : nullptr);
  err->cause = 0;
}

// Without std::string, which may throw: memory may be what is short. The message then stays as it is.
void append(tg_error* err, const std::string& note) noexcept {
  auto* message = reinterpret_cast<char*>(err->message);
  if (message == nullptr) return;
  size_t n = std::strlen(message);
  auto* longer = static_cast<char*>(std::realloc(message, n + note.size() + 1));
  if (longer == nullptr) return;
  std::memcpy(longer + n, note.c_str(), note.size() + 1);
  err->message = reinterpret_cast<uintptr_t>(longer);
}

// Naming the frames of a backtrace takes milliseconds, so it is done for those who ask, as in Python.
bool wants_backtrace() noexcept {
  static const bool wanted = [] {
    const char* value = std::getenv("TORCH_SHOW_CPP_STACKTRACES");
    return value != nullptr && std::strcmp(value, "1") == 0;
  }();
  return wanted;
}

tg_kind kind_of(const c10::Error& e) noexcept {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&e)) return TG_E_OUT_OF_MEMORY;
  if (dynamic_cast<const c10::NotImplementedError*>(&e)) return TG_E_NOT_IMPLEMENTED;
  if (dynamic_cast<const c10::LinAlgError*>(&e)) return TG_E_LINALG;
  if (dynamic_cast<const c10::IndexError*>(&e)) return TG_E_INDEX;
  if (dynamic_cast<const c10::ValueError*>(&e)) return TG_E_VALUE;
  if (dynamic_cast<const c10::TypeError*>(&e)) return TG_E_TYPE;
  // The CPU allocator throws a plain Error.
  if (std::strstr(e.what_without_backtrace(), "can't allocate memory")) return TG_E_OUT_OF_MEMORY;
  return TG_E_RUNTIME;
}

at::Generator generator_of(tg_generator g) {
  if (g == 0) return at::globalContext().defaultGenerator(c10::Device(c10::kCPU));
  return at::Generator(c10::intrusive_ptr<c10::GeneratorImpl>::reclaim_copy(reinterpret_cast<c10::GeneratorImpl*>(g)));
}

const char* runtime_version() noexcept {
  static const std::string version = []() -> std::string {
    try {
      std::string config = at::show_config();
      const char key[] = "TORCH_VERSION=";
      auto at = config.find(key);
      if (at == std::string::npos) return "";
      at += sizeof(key) - 1;
      return config.substr(at, config.find_first_not_of("0123456789.", at) - at);
    } catch (...) {
      return "";
    }
  }();
  return version.c_str();
}

const tg_api api = {TG_ABI, static_cast<int32_t>(sizeof(tg_api)),
                    C10_STRINGIZE(TORCH_VERSION_MAJOR) "." C10_STRINGIZE(TORCH_VERSION_MINOR) "." C10_STRINGIZE(TORCH_VERSION_PATCH),
                    runtime_version,
#define TG_ENTRY(name, params, args) name,
                    TG_FUNCTIONS(TG_ENTRY)
#undef TG_ENTRY
};

// Fills *err from the exception in flight.
void describe(tg_error* err) noexcept {
  try {
    throw;
  } catch (const ArgumentError& e) {
    fill(err, e.kind(), e.what(), nullptr);
  } catch (const CallbackError& e) {
    fill(err, TG_E_CALLBACK, e.what_without_backtrace(), wants_backtrace() ? e.what() : nullptr);
    err->cause = e.cause->give();
  } catch (const c10::Error& e) {
    fill(err, kind_of(e), e.what_without_backtrace(), wants_backtrace() ? e.what() : nullptr);
  } catch (const std::bad_alloc&) {
    fill(err, TG_E_OUT_OF_MEMORY, "out of memory", nullptr);
  } catch (const std::exception& e) {
    fill(err, TG_E_SYSTEM, e.what(), nullptr);
  } catch (...) {
    fill(err, TG_E_UNKNOWN, "something that is no std::exception was thrown", nullptr);
  }
}

}  // namespace

int32_t fail(tg_error* err) noexcept {
  try {
    throw;
  } catch (const AnnotatedError& annotated) {
    try {
      std::rethrow_exception(annotated.error);
    } catch (...) {
      describe(err);
    }
    append(err, annotated.note);
  } catch (...) {
    describe(err);
  }
  return static_cast<int32_t>(err->kind);
}

int32_t set_num_threads(int32_t n, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(n >= 1 && n <= 65536, "set_num_threads: expected at least 1 thread");
    at::set_num_threads(n);
  });
}

int32_t num_threads(int32_t* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "num_threads: NULL argument");
    *out = at::get_num_threads();
  });
}

int32_t manual_seed(uint64_t seed, tg_error* err) noexcept {
  return guarded(err, [&] { at::manual_seed(seed); });
}

int32_t generator_new(int32_t device, int32_t index, uint64_t seed, tg_generator* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "generator_new: NULL argument");
    c10::Device d = present(device, index);
    at::Generator g = at::globalContext().defaultGenerator(d).clone();
    g.set_current_seed(seed);
    *out = reinterpret_cast<tg_generator>(g.unsafeReleaseGeneratorImpl());
  });
}

int32_t generator_free(tg_generator g, tg_error* err) noexcept {
  return guarded(err, [&] {
    if (g != 0) c10::intrusive_ptr<c10::GeneratorImpl>::reclaim(reinterpret_cast<c10::GeneratorImpl*>(g));
  });
}

int32_t generator_seed(tg_generator g, uint64_t seed, tg_error* err) noexcept {
  return guarded(err, [&] {
    at::Generator gen = generator_of(g);
    std::lock_guard<std::mutex> lock(gen.mutex());
    gen.set_current_seed(seed);
  });
}

int32_t generator_state(tg_generator g, tg_tensor* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "generator_state: NULL argument");
    at::Generator gen = generator_of(g);
    std::lock_guard<std::mutex> lock(gen.mutex());
    *out = release(gen.get_state());
  });
}

int32_t generator_set_state(tg_generator g, tg_tensor state, tg_error* err) noexcept {
  return guarded(err, [&] {
    at::Generator gen = generator_of(g);
    std::lock_guard<std::mutex> lock(gen.mutex());
    gen.set_state(defined(state));
  });
}

int32_t device_count(int32_t device, int64_t* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "device_count: NULL argument");
    c10::DeviceType type = device_of(device, 0).type();
    *out = 0;
    if (type == c10::kCPU) *out = 1;
    else if (c10::impl::hasDeviceGuardImpl(type)) *out = c10::impl::VirtualGuardImpl(type).deviceCount();
  });
}

int32_t empty_cache(tg_error* err) noexcept {
  return guarded(err, [&] {
    if (auto type = at::getAccelerator(false)) at::getDeviceAllocator(*type)->emptyCache();
  });
}

int32_t show_config(char** out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "show_config: NULL argument");
    *out = owned(at::show_config() + "CPU capability: " + at::get_cpu_capability() + "\n");
  });
}

}  // namespace tg

extern "C" __attribute__((visibility("default"))) const tg_api* torchgo_api(void) { return &tg::api; }
