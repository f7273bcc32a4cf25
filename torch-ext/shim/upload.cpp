// Copies to a device that the host does not wait for.
#include <ATen/core/Tensor.h>

#include "guarded.h"

extern "C" char* te_upload(const Tensor* from, const Tensor* into) {
  return guarded([&] {
    TORCH_CHECK(from->is_cpu() && from->scalar_type() == into->scalar_type() && from->sizes() == into->sizes(),
                "an upload of ", from->toString(), from->sizes(), " into ", into->toString(), into->sizes());
    // The pinned copy goes back to libtorch's host allocator, which waits for the device before it gives it out again.
    if (into->is_cpu()) into->copy_(*from);
    else into->copy_(from->pin_memory(), /*non_blocking=*/true);
  });
}
