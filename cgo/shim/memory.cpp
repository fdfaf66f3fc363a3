// Memory of CPU tensors. posix_memalign and free are a quarter of what a small operator costs, so
// small blocks that were freed are kept for the thread's next tensors.
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <malloc.h>

#include <algorithm>
#include <utility>

#include "common.hpp"

namespace tg {
namespace {

constexpr size_t step = 64;  // what libtorch aligns to, and between the sizes of kept blocks
constexpr size_t sizes = 16;
constexpr size_t largest = step * sizes;
constexpr size_t kept_bytes = 16384;  // of each size and thread

struct Block {
  Block* next;
};

// The kept blocks of a thread, by size. It has no destructor, so that it can be used until the very
// end of the thread.
struct Kept {
  Block* first[sizes + 1];
  size_t bytes[sizes + 1];
  enum { Fresh, Open, Closed } state;
};
constinit thread_local Kept kept{};

// Frees them when the thread ends.
struct Closer {
  void open() { kept.state = Kept::Open; }
  ~Closer() {
    kept.state = Kept::Closed;
    for (Block*& first : kept.first) {
      while (first != nullptr) c10::free_cpu(std::exchange(first, first->next));
    }
  }
};
thread_local Closer closer;

// The number of whole steps that a block has room for.
size_t steps_of(void* p) { return malloc_usable_size(p) / step; }

void give_back(void* p) {
  if (p == nullptr) return;
  size_t n = steps_of(p);
  if (n > sizes) {
    c10::profiledCPUMemoryReporter().Delete(p);
    return c10::free_cpu(p);
  }
  Kept& k = kept;
  if (k.bytes[n] >= kept_bytes || k.state == Kept::Closed) return c10::free_cpu(p);
  if (k.state == Kept::Fresh) closer.open();
  k.first[n] = new (p) Block{k.first[n]};
  k.bytes[n] += n * step;
}

// libtorch's own allocator is like this one without the kept blocks.
class Allocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* p = nullptr;
    if (bytes > largest) {
      p = c10::alloc_cpu(std::max(bytes, largest + step));  // never as small as a kept one
      c10::profiledCPUMemoryReporter().New(p, bytes);
    } else if (bytes > 0) {
      p = small((bytes + step - 1) / step);
    }
    return {p, p, &give_back, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

 private:
  static void* small(size_t n) {
    Kept& k = kept;
    Block* b = k.first[n];
    if (b == nullptr) return c10::alloc_cpu(n * step);
    k.first[n] = b->next;
    k.bytes[n] -= n * step;
    return b;
  }
};

#ifndef __SANITIZE_ADDRESS__  // which is to see every use after a free
// From when the shim is opened. Never freed: tensors outlive static objects.
[[maybe_unused]] const bool installed = (c10::SetCPUAllocator(new Allocator(), 1), true);
#endif

}  // namespace
}  // namespace tg
