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
    // A dead or hung peer is an error of the call that waits for it. NCCL's watchdog would end the process.
    setenv("TORCH_NCCL_BLOCKING_WAIT", "1", 1);
    setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2", 1);  // abort the communicator, leave the process alone
    setenv("TORCH_NCCL_ENABLE_MONITORING", "0", 1);
    setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0", 1);
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = timeout;
    *out = c10::make_intrusive<c10d::ProcessGroupNCCL>(*store, rank, size, options);
  });
}
