// Tensors that travel together: packed into one piece of memory, pinned where a card is to read it, and sent in one copy.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "guarded.h"

namespace {
constexpr int64_t ALIGNMENT = 256;

// A tensor of a shape over a piece of memory.
Tensor over(const c10::Storage& storage, int64_t start, const Tensor& like) {
  auto empty = at::empty({0}, at::TensorOptions(like.scalar_type()).device(storage.device()));
  return empty.set_(storage, start / static_cast<int64_t>(like.element_size()), like.sizes(), like.strides());
}
}  // namespace

extern "C" {
// Moves tensors of the CPU into one piece of memory. They are new tensors then, and nothing else sees them.
char* te_pack(Tensor* const* tensors, size_t n, int pinned) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::vector<int64_t> starts;
    int64_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
      TORCH_CHECK(tensors[i]->is_cpu(), "only tensors on the CPU are packed");
      starts.push_back(bytes);
      bytes += (static_cast<int64_t>(tensors[i]->nbytes()) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    auto options = at::TensorOptions(at::kByte).pinned_memory(pinned);
    auto storage = at::empty({bytes}, options).storage();
    for (size_t i = 0; i < n; i++) {
      auto dense = tensors[i]->contiguous();
      auto packed = over(storage, starts[i], dense);
      packed.copy_(dense);
      *tensors[i] = packed;
    }
  });
}

// Moves tensors to a device, those over one piece of memory in one copy, which does not wait for the device. Pinned memory
// is used again when the device has read it: the copy tells its allocator so.
char* te_send(Tensor* const* tensors, size_t n, int device, int index) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    c10::Device to(static_cast<at::DeviceType>(device), static_cast<c10::DeviceIndex>(index));
    std::vector<std::pair<c10::StorageImpl*, Tensor>> sent;
    for (size_t i = 0; i < n; i++) {
      if (tensors[i]->device() == to) continue;
      auto storage = tensors[i]->storage();
      auto there = std::find_if(sent.begin(), sent.end(), [&](auto& one) {
        return one.first == storage.unsafeGetStorageImpl();
      });
      if (there == sent.end()) {
        auto bytes = at::empty({0}, at::TensorOptions(at::kByte).device(storage.device()));
        bytes.set_(storage, 0, {static_cast<int64_t>(storage.nbytes())}, {1});
        sent.emplace_back(storage.unsafeGetStorageImpl(), bytes.to(to, at::kByte, true));
        there = sent.end() - 1;
      }
      auto start = tensors[i]->storage_offset() * static_cast<int64_t>(tensors[i]->element_size());
      *tensors[i] = over(there->second.storage(), start, *tensors[i]);
    }
  });
}

// Copies of tensors in the CPU's memory, dense, where they are needed on their way to a file: all copies from a card are
// begun, into pinned memory where there is enough, and then waited for.
char* te_receive(Tensor* const* tensors, size_t n, Tensor** out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::vector<Tensor> copies;
    std::vector<Tensor> last;
    bool pinned = true;
    for (size_t i = 0; i < n; i++) {
      auto& tensor = *tensors[i];
      auto room = at::TensorOptions(tensor.scalar_type());
      Tensor copy;
      if (!tensor.is_cpu() && pinned) {
        try {
          copy = at::empty(tensor.sizes(), room.pinned_memory(true));
        } catch (const c10::Error&) {
          pinned = false;
        }
      }
      if (!copy.defined()) copy = at::empty(tensor.sizes(), room);
      copy.copy_(tensor, copy.is_pinned());
      if (!tensor.is_cpu()) last = {tensor};
      copies.push_back(copy);
    }
    // A blocking copy behind the others, on the same stream.
    for (auto& tensor : last) tensor.flatten().narrow(0, 0, tensor.numel() > 0).cpu();
    for (size_t i = 0; i < n; i++) out[i] = new Tensor(std::move(copies[i]));
  });
}
}
