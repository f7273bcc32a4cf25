// What libtorch has and `tch` does not bind. Functions return NULL or an error message, as guarded.h has it. A tensor crosses as a pointer to at::Tensor, which is what `tch` holds; lists cross as arrays of those.
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/stack.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "guarded.h"

namespace {
Tensor total_norm(const List& tensors) {
  return at::stack(at::_foreach_norm(tensors, 2)).norm();
}

// Gives NULL where it fails, and puts an error message of `size` bytes at most into `error`.
using Segment = Tensor* (*)(void* data, const Tensor* input, char* error, size_t size);
using Drop = void (*)(void* data);

struct Holder : torch::CustomClassHolder {
  std::shared_ptr<void> data;
};

// Recomputes its segment in the backward pass instead of keeping the activations.
struct Checkpoint : torch::autograd::Function<Checkpoint> {
  static Tensor run(const std::shared_ptr<void>& data, Segment segment, const Tensor& input) {
    char error[512] = "";
    std::unique_ptr<Tensor> out(segment(data.get(), &input, error, sizeof error));
    // With its kind: out of memory is the same on the way forward and when it is computed again.
    if (!out) raise(error);
    return *out;
  }

  static Tensor forward(torch::autograd::AutogradContext* ctx, Tensor input, int64_t segment, std::shared_ptr<void>* data) {
    ctx->save_for_backward({input});
    ctx->saved_data["segment"] = segment;
    auto holder = c10::make_intrusive<Holder>();
    holder->data = *data;
    ctx->saved_data["data"] = c10::IValue::make_capsule(std::move(holder));
    at::NoGradGuard no_grad;
    return run(*data, reinterpret_cast<Segment>(segment), input);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    auto capsule = ctx->saved_data["data"].toCapsule();
    auto& data = static_cast<Holder*>(capsule.get())->data;
    auto segment = reinterpret_cast<Segment>(ctx->saved_data["segment"].toInt());
    at::AutoGradMode grad_mode(true);
    auto input = ctx->get_saved_variables()[0].detach().requires_grad_(true);
    auto output = run(data, segment, input);
    torch::autograd::backward({output}, {grads[0].to(output.scalar_type())});
    return {input.grad(), Tensor(), Tensor()};  // one for each argument of forward
  }
};
}  // namespace

extern "C" {
void te_free(char* memory) { free(memory); }

// The driver's library. WSL2 has it too, but none of the usual device files.
static void* driver() {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  TORCH_CHECK(library, dlerror());
  return library;
}

char* te_find_driver() {
  return guarded([&] { driver(); });
}

// libtorch picks its CUDA hooks when it is first asked about CUDA, and keeps them: the library must be loaded before that.
// cuDNN's attention builds a plan for each new shape (147 ms on an H100), and every batch has new shapes: it stays off.
char* te_load_cuda() {
  return guarded([&] {
    TORCH_CHECK(dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL), dlerror());
    at::globalContext().setSDPUseCuDNN(false);
  });
}

// Before `main`, so that nothing can ask too early. An error comes again when `te_load_cuda` is called.
__attribute__((constructor)) static void load_cuda_before_main() {
  char* error = te_find_driver();
  if (!error) error = te_load_cuda();
  free_message(error);
}

// c10d reads its settings from the environment, which must not change once there are threads. What the user has set stays.
__attribute__((constructor)) static void set_environment_before_main() {
  const char* settings[][2] = {
      // The flight recorder writes down which groups there are without a lock, and would crash where ranks are threads.
      {"TORCH_FR_BUFFER_SIZE", "0"},
      // A dead or hung peer is an error of the call that waits for it. NCCL's watchdog would end the process.
      {"TORCH_NCCL_BLOCKING_WAIT", "1"},
      {"TORCH_NCCL_ASYNC_ERROR_HANDLING", "2"},  // abort the communicator, leave the process alone
      {"TORCH_NCCL_ENABLE_MONITORING", "0"},
      {"TORCH_NCCL_DUMP_ON_TIMEOUT", "0"},
  };
  for (auto& [name, value] : settings) setenv(name, value, 0);
}

// The newest CUDA that the driver knows (1000 * major + 10 * minor), and what it says when it is started.
char* te_driver_state(int* version, int* status) {
  return guarded([&] {
    void* library = driver();
    auto get_version = reinterpret_cast<int (*)(int*)>(dlsym(library, "cuDriverGetVersion"));
    auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(library, "cuInit"));
    TORCH_CHECK(get_version && init, "libcuda.so.1 is not a CUDA driver");
    *status = get_version(version);
    if (*status == 0) *status = init(0);
  });
}

// A card as the driver alone describes it: libtorch's CUDA half need not be there. `name` has room for `size` bytes.
char* te_card(int index, char* name, int size, uint64_t* memory, int* major, int* minor) {
  return guarded([&] {
    void* library = driver();
    auto call = [&](const char* function, auto... arguments) {
      auto found = reinterpret_cast<int (*)(decltype(arguments)...)>(dlsym(library, function));
      TORCH_CHECK(found, "libcuda.so.1 has no ", function);
      int status = found(arguments...);
      TORCH_CHECK(status == 0, "error ", status, " of ", function);
    };
    const int MAJOR = 75, MINOR = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
    int device = 0;
    size_t bytes = 0;
    call("cuInit", 0u);
    call("cuDeviceGet", &device, index);
    call("cuDeviceGetName", name, size, device);
    call("cuDeviceTotalMem_v2", &bytes, device);
    call("cuDeviceGetAttribute", major, MAJOR, device);
    call("cuDeviceGetAttribute", minor, MINOR, device);
    *memory = bytes;
  });
}

// What NCCL or cuDNN says of itself: 10000 * major + 100 * minor + patch.
char* te_library_version(const char* library, int64_t* version) {
  return guarded([&] {
    void* loaded = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
    TORCH_CHECK(loaded, dlerror());
    auto nccl = reinterpret_cast<int (*)(int*)>(dlsym(loaded, "ncclGetVersion"));
    auto cudnn = reinterpret_cast<size_t (*)()>(dlsym(loaded, "cudnnGetVersion"));
    int number = 0;
    TORCH_CHECK(cudnn || (nccl && nccl(&number) == 0), library, " tells no version");
    *version = cudnn ? static_cast<int64_t>(cudnn()) : number;
  });
}

// Which of its fused kinds of attention libtorch may use.
char* te_fused_attention(int* flash, int* efficient, int* cudnn) {
  return guarded([&] {
    auto& context = at::globalContext();
    *flash = context.userEnabledFlashSDP();
    *efficient = context.userEnabledMemEfficientSDP();
    *cudnn = context.userEnabledCuDNNSDP();
  });
}

// Fails where libtorch's CUDA hooks are those of a build without CUDA.
char* te_cuda_runtime_version(int64_t* version) {
  return guarded([&] { *version = at::detail::getCUDAHooks().versionCUDART(); });
}

// What `name` stands for in the CUDA part of this program, a library of its own that is loaded after libtorch's.
char* te_cuda_part(const char* library, const char* name, void** out) {
  return guarded([&] {
    void* part = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    TORCH_CHECK(part, dlerror());
    *out = dlsym(part, name);
    TORCH_CHECK(*out, library, " is not the CUDA part of this program");
  });
}

char* te_autocast_get(int device, int* enabled, int* dtype) {
  return guarded([&] {
    auto type = static_cast<at::DeviceType>(device);
    *enabled = at::autocast::is_autocast_enabled(type);
    *dtype = static_cast<int>(at::autocast::get_autocast_dtype(type));
  });
}

// Leaving the outermost region drops the cached casts of the weights.
char* te_autocast_set(int device, int enabled, int dtype, int enter) {
  return guarded([&] {
    auto type = static_cast<at::DeviceType>(device);
    at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(dtype));
    at::autocast::set_autocast_enabled(type, enabled);
    if (enter) {
      at::autocast::increment_nesting();
    } else if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
    }
  });
}

char* te_fused_adamw(Tensor* const* params, Tensor* const* grads, Tensor* const* exp_avgs, Tensor* const* exp_avg_sqs,
                     Tensor* const* steps, size_t n, const Tensor* lr, double beta1, double beta2, double weight_decay,
                     double eps, const Tensor* found_inf) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto step_list = list(steps, n);
    // As torch.optim does: the counters go up, and back down where a non-finite gradient voids the step.
    at::_foreach_add_(step_list, 1);
    at::_fused_adamw_(list(params, n), list(grads, n), list(exp_avgs, n), list(exp_avg_sqs, n), {}, step_list, *lr, beta1,
                      beta2, weight_decay, eps, false, false, std::nullopt, *found_inf);
    at::_foreach_sub_(step_list, List(n, *found_inf));
  });
}

char* te_unscale(Tensor* const* grads, size_t n, Tensor* found_inf, const Tensor* inv_scale) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_amp_foreach_non_finite_check_and_unscale_(list(grads, n), *found_inf, *inv_scale);
  });
}

char* te_update_scale(Tensor* scale, Tensor* growth_tracker, const Tensor* found_inf, double growth, double backoff,
                      int64_t interval) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_amp_update_scale_(*scale, *growth_tracker, *found_inf, growth, backoff, interval);
  });
}

char* te_zero(Tensor* const* tensors, size_t n) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_zero_(list(tensors, n));
  });
}

char* te_total_norm(Tensor* const* tensors, size_t n, Tensor** out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    *out = new Tensor(total_norm(list(tensors, n)));
  });
}

char* te_clip_by_norm(Tensor* const* tensors, size_t n, double max_norm, Tensor** out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto tensor_list = list(tensors, n);
    auto norm = total_norm(tensor_list);
    at::_foreach_mul_(tensor_list, (max_norm / (norm + 1e-6)).clamp_max(1.0));
    *out = new Tensor(norm);
  });
}

char* te_checkpoint(const Tensor* input, Segment segment, void* data, Drop drop, Tensor** out) {
  return guarded([&] {
    std::shared_ptr<void> owner(data, drop);
    *out = new Tensor(Checkpoint::apply(*input, reinterpret_cast<int64_t>(segment), &owner));
  });
}

char* te_device_memory(int device, int index, uint64_t* free, uint64_t* total, uint64_t* allocated, uint64_t* peak) {
  return guarded([&] {
    auto* allocator = c10::getDeviceAllocator(static_cast<at::DeviceType>(device));
    auto info = allocator->getMemoryInfo(index);
    auto stats = allocator->getDeviceStats(index);
    *free = info.first;
    *total = info.second;
    *allocated = stats.allocated_bytes[0].current;
    *peak = stats.allocated_bytes[0].peak;
  });
}

// Whether a device has done all that this thread has given it.
char* te_idle(int device, int index, int* idle) {
  return guarded([&] {
    c10::Device of(static_cast<at::DeviceType>(device), static_cast<c10::DeviceIndex>(index));
    *idle = c10::impl::VirtualGuardImpl(of.type()).getStream(of).query();
  });
}

char* te_empty_cache(int device) {
  return guarded([&] { c10::getDeviceAllocator(static_cast<at::DeviceType>(device))->emptyCache(); });
}
}
