// Kineto, libtorch's profiler: a Chrome trace of the operators that this thread and its backward passes run, and of what a
// card does for them.
#include <ATen/Context.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include "guarded.h"

using namespace torch::profiler::impl;

namespace {
// What a card was given before and has not done yet: the host may be steps ahead of it.
void wait(int card) {
  if (card >= 0) at::detail::getCUDAHooks().deviceSynchronize(static_cast<c10::DeviceIndex>(card));
}
}  // namespace

extern "C" {
// A negative card is none.
char* te_profile_begin(int card) {
  return guarded([&] {
    wait(card);
    std::set<ActivityType> activities{ActivityType::CPU};
    if (card >= 0) activities.insert(ActivityType::CUDA);
    const ProfilerConfig config(ProfilerState::KINETO);
    torch::autograd::profiler::prepareProfiler(config, activities);
    torch::autograd::profiler::enableProfiler(config, activities);
  });
}

// Writes what was seen since then.
char* te_profile_end(int card, const char* path) {
  return guarded([&] {
    wait(card);
    auto result = torch::autograd::profiler::disableProfiler();
    if (path) result->save(path);
  });
}

// A name in the trace for what runs until te_span_end; nothing where no one looks.
char* te_span_begin(const char* name, void** span) {
  return guarded([&] {
    auto guard = std::make_unique<at::RecordFunction>(at::RecordScope::USER_SCOPE);
    if (!guard->isActive()) return;
    guard->before(std::string(name));
    *span = guard.release();
  });
}

void te_span_end(void* span) {
  unreported([&] { delete static_cast<at::RecordFunction*>(span); });
}
}
