// Modes of a thread besides autograd's: autocast, and all of them together for another thread. Flags of
// the process.
#include <ATen/SavedTensorHooks.h>
#include <ATen/ThreadLocalState.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <optional>

#include "autograd.hpp"

namespace tg {
namespace {

namespace autocast = at::autocast;
using c10::impl::VirtualGuardImpl;

// The casts of weights that autocast keeps go when the thread's outermost one ends.
struct Nesting {
  Nesting() { autocast::increment_nesting(); }
  ~Nesting() {
    if (autocast::decrement_nesting() == 0) autocast::clear_cache();
  }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;
};

struct AutocastMode final : Guard {
  AutocastMode(c10::DeviceType type, bool on, c10::ScalarType dtype, bool cache)
      : type(type),
        was_on(autocast::is_autocast_enabled(type)),
        was_dtype(autocast::get_autocast_dtype(type)),
        was_cache(autocast::is_autocast_cache_enabled()) {
    autocast::set_autocast_enabled(type, on);
    autocast::set_autocast_dtype(type, dtype);
    autocast::set_autocast_cache_enabled(cache);
  }
  ~AutocastMode() override {
    autocast::set_autocast_enabled(type, was_on);
    autocast::set_autocast_dtype(type, was_dtype);
    autocast::set_autocast_cache_enabled(was_cache);
  }

  Nesting nesting;
  c10::DeviceType type;
  bool was_on;
  c10::ScalarType was_dtype;
  bool was_cache;
};

c10::DeviceType autocast_type(int32_t device) {
  c10::DeviceType type = device_of(device, -1).type();
  if (!autocast::is_autocast_available(type)) throw ArgumentError("autocast is not for " + c10::DeviceTypeName(type, true));
  return type;
}

// What at::ThreadLocalState leaves out.
struct Extra {
  bool cache = true;
  std::optional<c10::Device> device;
  std::vector<c10::Stream> streams;  // that are not their devices' default ones
};

struct State {
  at::ThreadLocalState libtorch;
  Extra extra;
};

Extra capture_extra() {
  Extra e;
  e.cache = autocast::is_autocast_cache_enabled();
  if (!c10::impl::hasDeviceGuardImpl(c10::kCUDA)) return e;
  VirtualGuardImpl cuda(c10::kCUDA);
  int count = cuda.deviceCount();
  if (count == 0) return e;
  c10::Device current = cuda.getDevice();
  if (current.index() != 0) e.device = current;
  for (int i = 0; i < count; i++) {
    c10::Device d(c10::kCUDA, static_cast<c10::DeviceIndex>(i));
    if (!at::detail::getCUDAHooks().hasPrimaryContext(d.index())) continue;
    c10::Stream s = cuda.getStream(d);
    if (s != cuda.getDefaultStream(d)) e.streams.push_back(s);
  }
  return e;
}

bool by_default(const Extra& e) {
  const auto& keys = c10::impl::raw_local_dispatch_key_set;  // of inference mode and autocast
  return keys.included_ == 0 && keys.excluded_ == 0 && c10::GradMode::is_enabled() && !c10::InferenceMode::is_enabled() && e.cache &&
         !e.device && e.streams.empty() && c10::ThreadLocalDebugInfo::get(saved_hooks_slot()) == nullptr;
}

struct StateMode final : Guard {
  explicit StateMode(const State& s) : was_cache(autocast::is_autocast_cache_enabled()), libtorch(s.libtorch) {
    autocast::set_autocast_cache_enabled(s.extra.cache);
    if (!s.extra.device && s.extra.streams.empty()) return;
    VirtualGuardImpl cuda(c10::kCUDA);
    if (s.extra.device) was.device = cuda.exchangeDevice(*s.extra.device);
    for (const c10::Stream& stream : s.extra.streams) was.streams.push_back(cuda.exchangeStream(stream));
  }
  ~StateMode() override {
    autocast::set_autocast_cache_enabled(was_cache);
    if (!was.device && was.streams.empty()) return;
    VirtualGuardImpl cuda(c10::kCUDA);
    for (const c10::Stream& stream : was.streams) cuda.exchangeStream(stream);
    if (was.device) cuda.uncheckedSetDevice(*was.device);
  }

  Nesting nesting;
  bool was_cache;
  Extra was;
  at::ThreadLocalStateGuard libtorch;
};

struct Flag {
  int64_t (*get)(const at::Context&);
  void (*set)(at::Context&, int64_t);
  int64_t largest;  // allowed value
};

const char* const precisions[] = {"highest", "high", "medium"};

// By TG_FLAG_…
const Flag all_flags[TG_FLAG_COUNT] = {
    {[](const at::Context& c) -> int64_t { return c.deterministicAlgorithms() ? 1 + c.deterministicAlgorithmsWarnOnly() : 0; },
     [](at::Context& c, int64_t v) { c.setDeterministicAlgorithms(v != 0, v == 2); }, 2},
    {[](const at::Context& c) -> int64_t { return c.deterministicFillUninitializedMemory(); },
     [](at::Context& c, int64_t v) { c.setDeterministicFillUninitializedMemory(v != 0); }, 1},
    {[](const at::Context& c) -> int64_t { return c.userEnabledCuDNN(); }, [](at::Context& c, int64_t v) { c.setUserEnabledCuDNN(v != 0); },
     1},
    {[](const at::Context& c) -> int64_t { return c.benchmarkCuDNN(); }, [](at::Context& c, int64_t v) { c.setBenchmarkCuDNN(v != 0); }, 1},
    {[](const at::Context& c) -> int64_t { return c.benchmarkLimitCuDNN(); },
     [](at::Context& c, int64_t v) { c.setBenchmarkLimitCuDNN(static_cast<int>(v)); }, INT32_MAX},
    {[](const at::Context& c) -> int64_t { return c.deterministicCuDNN(); },
     [](at::Context& c, int64_t v) { c.setDeterministicCuDNN(v != 0); }, 1},
    {[](const at::Context& c) -> int64_t { return c.allowTF32CuDNN(); }, [](at::Context& c, int64_t v) { c.setAllowTF32CuDNN(v != 0); }, 1},
    {[](const at::Context& c) -> int64_t { return c.allowTF32CuBLAS(); }, [](at::Context& c, int64_t v) { c.setAllowTF32CuBLAS(v != 0); },
     1},
    {[](const at::Context& c) -> int64_t { return static_cast<int64_t>(c.float32MatmulPrecision()); },
     [](at::Context& c, int64_t v) { c.setFloat32MatmulPrecision(precisions[v]); }, 2},
    {[](const at::Context& c) -> int64_t {
       return c.allowFP16ReductionCuBLAS() == at::CuBLASReductionOption::AllowReducedPrecisionWithSplitK;
     },
     [](at::Context& c, int64_t v) { c.setAllowFP16ReductionCuBLAS(v != 0); }, 1},
    {[](const at::Context& c) -> int64_t {
       return c.allowBF16ReductionCuBLAS() == at::CuBLASReductionOption::AllowReducedPrecisionWithSplitK;
     },
     [](at::Context& c, int64_t v) { c.setAllowBF16ReductionCuBLAS(v != 0); }, 1},
};

const Flag& flag_of(int32_t flag) {
  require(flag >= 0 && flag < TG_FLAG_COUNT, "unknown flag");
  return all_flags[flag];
}

}  // namespace

int32_t autocast_enter(int32_t device, int32_t on, int32_t dtype, int32_t cache, tg_guard* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "autocast_enter: NULL argument");
    c10::DeviceType type = autocast_type(device);
    auto to = dtype == -1 ? autocast::get_autocast_dtype(type) : static_cast<c10::ScalarType>(dtype);
    require(on == 0 || to == c10::kHalf || to == c10::kBFloat16, "expected float16 or bfloat16 to cast to");
    if (to != c10::kHalf && to != c10::kBFloat16) to = autocast::get_autocast_dtype(type);
    *out = hand(new AutocastMode(type, on != 0, to, cache == -1 ? autocast::is_autocast_cache_enabled() : cache != 0));
  });
}

int32_t autocast_state(int32_t device, int64_t* out, int64_t cap, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr && cap >= 3, "autocast_state: no room");
    c10::DeviceType type = autocast_type(device);
    out[0] = autocast::is_autocast_enabled(type);
    out[1] = static_cast<int64_t>(autocast::get_autocast_dtype(type));
    out[2] = autocast::is_autocast_cache_enabled();
  });
}

int32_t state_capture(tg_state* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "state_capture: NULL argument");
    Extra extra = capture_extra();
    *out = by_default(extra) ? 0 : reinterpret_cast<tg_state>(new State{at::ThreadLocalState(), std::move(extra)});
  });
}

int32_t state_enter(tg_state state, tg_guard* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr && state != 0, "state_enter: NULL argument");
    *out = hand(new StateMode(*reinterpret_cast<State*>(state)));
  });
}

int32_t state_free(tg_state state, tg_error* err) noexcept {
  return guarded(err, [&] { delete reinterpret_cast<State*>(state); });
}

int32_t flag_get(int32_t flag, int64_t* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "flag_get: NULL argument");
    *out = flag_of(flag).get(at::globalContext());
  });
}

int32_t flag_set(int32_t flag, int64_t value, tg_error* err) noexcept {
  return guarded(err, [&] {
    const Flag& f = flag_of(flag);
    require(value >= 0 && value <= f.largest, "flag_set: value is out of range");
    f.set(at::globalContext(), value);
  });
}

}  // namespace tg
