// The CUDA half: properties of devices, limits of their memory, graphs.
#include "cuda.hpp"

#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <torch/version.h>

#include "torchgo.h"

namespace tg {
namespace {

void properties(int device, std::string* name, int64_t* words) {
  const cudaDeviceProp& p = *at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(device));
  *name = p.name;
  words[TG_PROP_TOTAL_MEMORY] = static_cast<int64_t>(p.totalGlobalMem);
  words[TG_PROP_MAJOR] = p.major;
  words[TG_PROP_MINOR] = p.minor;
  words[TG_PROP_MULTIPROCESSORS] = p.multiProcessorCount;
  words[TG_PROP_WARP_SIZE] = p.warpSize;
  words[TG_PROP_THREADS_PER_MULTIPROCESSOR] = p.maxThreadsPerMultiProcessor;
  words[TG_PROP_THREADS_PER_BLOCK] = p.maxThreadsPerBlock;
  words[TG_PROP_SHARED_PER_BLOCK] = static_cast<int64_t>(p.sharedMemPerBlock);
  words[TG_PROP_SHARED_PER_MULTIPROCESSOR] = static_cast<int64_t>(p.sharedMemPerMultiprocessor);
  words[TG_PROP_REGISTERS_PER_MULTIPROCESSOR] = p.regsPerMultiprocessor;
  words[TG_PROP_L2_BYTES] = p.l2CacheSize;
  words[TG_PROP_INTEGRATED] = p.integrated;
}

void memory_fraction(int device, double fraction) {
  c10::cuda::CUDACachingAllocator::setMemoryFraction(fraction, static_cast<c10::DeviceIndex>(device));
}

template <class Id>
Pool pool_of(const Id& id) {
  return {{id.first, id.second}};
}

class CudaGraph final : public Graph {
 public:
  void begin(Pool pool, int mode) override {
    constexpr cudaStreamCaptureMode modes[] = {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed};
    graph_.capture_begin({pool.id[0], pool.id[1]}, modes[mode]);
  }
  void end() override { graph_.capture_end(); }
  void replay() override { graph_.replay(); }
  void reset() override { graph_.reset(); }
  Pool pool() override { return pool_of(graph_.pool()); }

 private:
  at::cuda::CUDAGraph graph_;
};

Pool new_pool() { return pool_of(at::cuda::graph_pool_handle()); }

std::unique_ptr<Graph> new_graph() { return std::make_unique<CudaGraph>(); }

const Cuda table = {TG_ABI,
                    static_cast<int32_t>(sizeof(Cuda)),
                    C10_STRINGIZE(TORCH_VERSION_MAJOR) "." C10_STRINGIZE(TORCH_VERSION_MINOR) "." C10_STRINGIZE(TORCH_VERSION_PATCH),
                    properties,
                    memory_fraction,
                    new_pool,
                    new_graph};

}  // namespace
}  // namespace tg

extern "C" __attribute__((visibility("default"))) const tg::Cuda* torchgo_cuda(void) { return &tg::table; }
