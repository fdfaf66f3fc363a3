// What the shim takes from its CUDA half, libtorchgo_cuda.so: what needs CUDA's headers. The half is
// opened with CUDA only, and found by its one symbol.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace tg {

struct Pool {
  uint64_t id[2];
};

struct Graph {
  virtual ~Graph() = default;
  virtual void begin(Pool pool, int mode) = 0;  // 0 global, 1 thread local, 2 relaxed
  virtual void end() = 0;
  virtual void replay() = 0;
  virtual void reset() = 0;
  virtual Pool pool() = 0;
};

// Functions may throw.
struct Cuda {
  int32_t abi;                                                        // TG_ABI
  int32_t size;                                                       // sizeof(Cuda)
  const char* libtorch;                                               // version it was compiled with
  void (*properties)(int device, std::string* name, int64_t* words);  // TG_PROP_WORDS
  void (*memory_fraction)(int device, double fraction);
  Pool (*new_pool)();
  std::unique_ptr<Graph> (*new_graph)();
};

}  // namespace tg

extern "C" const tg::Cuda* torchgo_cuda(void);
