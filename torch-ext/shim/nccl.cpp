// The NCCL backend, compiled where libtorch has CUDA and loaded after it.
#define USE_C10D_NCCL 1
#define USE_CUDA 1
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#include <torch/torch.h>

#include "distributed.h"
#include "guarded.h"

extern "C" char* te_make_nccl(const c10::intrusive_ptr<c10d::Store>* store, int rank, int size,
                              std::chrono::milliseconds timeout, c10::intrusive_ptr<c10d::Backend>* out) {
  return guarded([&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = timeout;
    *out = c10::make_intrusive<c10d::ProcessGroupNCCL>(*store, rank, size, options);
  });
}
