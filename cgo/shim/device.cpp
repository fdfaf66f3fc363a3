// Devices, streams, events, the memory and generators of devices, graphs.
#include <ATen/DeviceAccelerator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <atomic>

#include "common.hpp"
#include "cuda.hpp"

namespace tg {
namespace {

using c10::impl::VirtualGuardImpl;

std::atomic<const Cuda*> half{nullptr};

const Cuda& cuda() {
  const Cuda* c = half.load();
  if (c == nullptr) {
    throw ArgumentError("libtorchgo_cuda.so is not there: CUDA's headers were missing when `torchgo setup` compiled it", TG_E_NO_DEVICE);
  }
  return *c;
}

c10::Stream stream_of(int32_t type, int32_t index, int64_t id) { return c10::Stream(c10::Stream::UNSAFE, present(type, index), id); }

c10::Event& event_of(tg_event e) {
  require(e != 0, "no event");
  return *reinterpret_cast<c10::Event*>(e);
}

Graph& graph_of(tg_graph g) {
  require(g != 0, "no graph");
  return *reinterpret_cast<Graph*>(g);
}

c10::DeviceAllocator& allocator_of(const c10::Device& d) {
  require(d.type() != c10::kCPU, "the CPU's memory is not counted: expected an accelerator");
  return *at::getDeviceAllocator(d.type());
}

struct DeviceMode final : Guard {
  explicit DeviceMode(c10::Device d) : guard(d) {}
  c10::DeviceGuard guard;
};

struct StreamMode final : Guard {
  explicit StreamMode(c10::Stream s) : guard(s) {}
  c10::StreamGuard guard;
};

void put(int64_t*& out, const c10::CachingAllocator::Stat& s, size_t step) {
  out[0] = s.current;
  out[step] = s.peak;
  out[2 * step] = s.allocated;
  out[3 * step] = s.freed;
  out++;
}

void put(int64_t*& out, const c10::CachingAllocator::StatArray& all) {
  for (const auto& s : all) put(out, s, all.size());
  out += 3 * all.size();
}

}  // namespace

c10::Device present(int32_t type, int32_t index) {
  c10::Device d = device_of(type, index);
  if (d.type() == c10::kCPU) return c10::Device(c10::kCPU);
  auto missing = [&](const std::string& why) { return ArgumentError(d.str() + " was asked for, but " + why, TG_E_NO_DEVICE); };
  std::string name = c10::DeviceTypeName(d.type(), true);
  if (!c10::impl::hasDeviceGuardImpl(d.type())) throw missing("libtorch runs without " + name + " here");
  if (!at::isAccelerator(d.type())) throw ArgumentError("expected the CPU or an accelerator, got " + d.str());
  VirtualGuardImpl impl(d.type());
  int count = impl.deviceCount();
  if (count == 0) throw missing("there is no " + name + " device that libtorch can use");
  if (index >= count) throw missing("the number of " + name + " devices is " + std::to_string(count));
  at::globalContext().lazyInitDevice(d.type());
  return d.has_index() ? d : impl.getDevice();
}

int32_t cuda_open(const char* path, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(path != nullptr, "cuda_open: NULL argument");
    void* handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    const char* why = handle == nullptr ? dlerror() : nullptr;
    TORCH_CHECK(handle != nullptr, "can't open the shim's CUDA half: ", why == nullptr ? "" : why);
    auto* table = reinterpret_cast<const Cuda* (*)()>(dlsym(handle, "torchgo_cuda"));
    TORCH_CHECK(table != nullptr, "not the shim's CUDA half");
    const Cuda* c = table();
    TORCH_CHECK(c->abi == TG_ABI && c->size == static_cast<int32_t>(sizeof(Cuda)) && std::strcmp(c->libtorch, TORCH_VERSION) == 0,
                "the shim and its CUDA half are of different versions");
    half.store(c);
  });
}

int32_t device_current(int32_t device, int32_t* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "device_current: NULL argument");
    *out = present(device, -1).index();
  });
}

int32_t device_enter(int32_t device, int32_t index, tg_guard* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "device_enter: NULL argument");
    *out = hand(new DeviceMode(present(device, index)));
  });
}

int32_t device_synchronize(int32_t device, int32_t index, tg_error* err) noexcept {
  return guarded(err, [&] {
    c10::Device d = present(device, index);
    if (d.type() != c10::kCPU) VirtualGuardImpl(d.type()).synchronizeDevice(d.index());
  });
}

int32_t device_properties(int32_t device, int32_t index, int64_t* out, int64_t cap, char** name, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(name != nullptr && out != nullptr && cap >= TG_PROP_WORDS, "device_properties: no room");
    c10::Device d = present(device, index);
    require(d.type() == c10::kCUDA, "device_properties: expected a CUDA device");
    std::string text;
    cuda().properties(d.index(), &text, out);
    *name = owned(text);
  });
}

int32_t stream_get(int32_t device, int32_t index, int32_t which, int32_t priority, int64_t* out, int64_t cap, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr && cap >= 2, "stream_get: no room");
    require(which >= TG_STREAM_CURRENT && which <= TG_STREAM_NEW, "stream_get: unknown kind of stream");
    c10::Device d = present(device, index);
    VirtualGuardImpl impl(d.type());
    c10::Stream s(c10::Stream::DEFAULT, d);
    if (which == TG_STREAM_CURRENT) s = impl.getStream(d);
    else if (which == TG_STREAM_NEW) s = impl.getNewStream(d, priority);
    else if (d.type() != c10::kCPU) s = impl.getDefaultStream(d);
    out[0] = s.device_index();
    out[1] = s.id();
  });
}

int32_t stream_enter(int32_t device, int32_t index, int64_t id, tg_guard* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "stream_enter: NULL argument");
    *out = hand(new StreamMode(stream_of(device, index, id)));
  });
}

int32_t stream_query(int32_t device, int32_t index, int64_t id, int32_t* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "stream_query: NULL argument");
    *out = stream_of(device, index, id).query();
  });
}

int32_t stream_synchronize(int32_t device, int32_t index, int64_t id, tg_error* err) noexcept {
  return guarded(err, [&] { stream_of(device, index, id).synchronize(); });
}

int32_t event_new(int32_t device, int32_t timing, tg_event* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "event_new: NULL argument");
    auto flag = timing != 0 ? c10::EventFlag::BACKEND_DEFAULT : c10::EventFlag::PYTORCH_DEFAULT;
    *out = reinterpret_cast<tg_event>(new c10::Event(present(device, -1).type(), flag));
  });
}

int32_t event_free(tg_event e, tg_error* err) noexcept {
  return guarded(err, [&] { delete reinterpret_cast<c10::Event*>(e); });
}

int32_t event_record(tg_event e, int32_t device, int32_t index, int64_t id, tg_error* err) noexcept {
  return guarded(err, [&] { event_of(e).record(stream_of(device, index, id)); });
}

int32_t event_block(tg_event e, int32_t device, int32_t index, int64_t id, tg_error* err) noexcept {
  return guarded(err, [&] { event_of(e).block(stream_of(device, index, id)); });
}

int32_t event_query(tg_event e, int32_t* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "event_query: NULL argument");
    *out = event_of(e).query();
  });
}

int32_t event_synchronize(tg_event e, tg_error* err) noexcept {
  return guarded(err, [&] { event_of(e).synchronize(); });
}

int32_t event_elapsed(tg_event from, tg_event to, double* milliseconds, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(milliseconds != nullptr, "event_elapsed: NULL argument");
    *milliseconds = event_of(from).elapsedTime(event_of(to));
  });
}

int32_t record_stream(tg_tensor t, int32_t device, int32_t index, int64_t id, tg_error* err) noexcept {
  return guarded(err, [&] { defined(t).record_stream(stream_of(device, index, id)); });
}

int32_t memory_stats(int32_t device, int32_t index, int64_t* out, int64_t cap, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr && cap >= TG_MEMORY_WORDS, "memory_stats: no room");
    c10::Device d = present(device, index);
    auto s = allocator_of(d).getDeviceStats(d.index());
    for (const auto& all : {s.allocation, s.segment, s.active, s.inactive_split, s.allocated_bytes, s.reserved_bytes, s.active_bytes,
                            s.inactive_split_bytes, s.requested_bytes}) {
      put(out, all);
    }
    for (const auto& one : {s.oversize_allocations, s.oversize_segments}) {
      put(out, one, 1);
      out += 3;
    }
    for (int64_t n : {s.num_alloc_retries, s.num_ooms, s.num_sync_all_streams, s.num_device_alloc, s.num_device_free, s.max_split_size}) {
      *out++ = n;
    }
  });
}

int32_t memory_reset(int32_t device, int32_t index, int32_t accumulated, tg_error* err) noexcept {
  return guarded(err, [&] {
    c10::Device d = present(device, index);
    if (accumulated != 0) allocator_of(d).resetAccumulatedStats(d.index());
    else allocator_of(d).resetPeakStats(d.index());
  });
}

int32_t memory_info(int32_t device, int32_t index, int64_t* out, int64_t cap, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr && cap >= 2, "memory_info: no room");
    c10::Device d = present(device, index);
    auto [free, total] = allocator_of(d).getMemoryInfo(d.index());
    out[0] = static_cast<int64_t>(free);
    out[1] = static_cast<int64_t>(total);
  });
}

int32_t memory_fraction(int32_t device, int32_t index, double fraction, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(fraction >= 0 && fraction <= 1, "memory_fraction: expected a fraction between 0 and 1");
    c10::Device d = present(device, index);
    require(d.type() == c10::kCUDA, "memory_fraction: expected a CUDA device");
    cuda().memory_fraction(d.index(), fraction);
  });
}

int32_t generator_default(int32_t device, int32_t index, tg_generator* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "generator_default: NULL argument");
    at::Generator g = at::globalContext().defaultGenerator(present(device, index));
    *out = reinterpret_cast<tg_generator>(g.unsafeReleaseGeneratorImpl());
  });
}

int32_t graph_new(int32_t device, tg_graph* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "graph_new: NULL argument");
    require(present(device, -1).type() == c10::kCUDA, "graph_new: expected a CUDA device");
    *out = reinterpret_cast<tg_graph>(cuda().new_graph().release());
  });
}

int32_t graph_free(tg_graph g, tg_error* err) noexcept {
  return guarded(err, [&] { delete reinterpret_cast<Graph*>(g); });
}

int32_t graph_begin(tg_graph g, uint64_t pool0, uint64_t pool1, int32_t mode, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(mode >= 0 && mode <= 2, "graph_begin: unknown mode");
    graph_of(g).begin({{pool0, pool1}}, mode);
  });
}

int32_t graph_end(tg_graph g, tg_error* err) noexcept {
  return guarded(err, [&] { graph_of(g).end(); });
}

int32_t graph_replay(tg_graph g, tg_error* err) noexcept {
  return guarded(err, [&] { graph_of(g).replay(); });
}

int32_t graph_reset(tg_graph g, tg_error* err) noexcept {
  return guarded(err, [&] { graph_of(g).reset(); });
}

int32_t graph_pool(tg_graph g, int64_t* out, int64_t cap, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr && cap >= 2, "graph_pool: no room");
    if (g == 0) present(static_cast<int32_t>(c10::kCUDA), -1);
    Pool p = g != 0 ? graph_of(g).pool() : cuda().new_pool();
    out[0] = static_cast<int64_t>(p.id[0]);
    out[1] = static_cast<int64_t>(p.id[1]);
  });
}

}  // namespace tg
