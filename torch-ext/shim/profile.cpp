// Kineto, libtorch's profiler: a Chrome trace of the operators that this thread and its backward passes run, and of what a
// card does for them.
#include <ATen/record_function.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include "guarded.h"

using namespace torch::profiler::impl;

extern "C" {
char* te_profile_begin(int cuda) {
  return guarded([&] {
    std::set<ActivityType> activities{ActivityType::CPU};
    if (cuda) activities.insert(ActivityType::CUDA);
    const ProfilerConfig config(ProfilerState::KINETO);
    torch::autograd::profiler::prepareProfiler(config, activities);
    torch::autograd::profiler::enableProfiler(config, activities);
  });
}

// Writes what was seen since then.
char* te_profile_end(const char* path) {
  return guarded([&] {
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

void te_span_end(void* span) { delete static_cast<at::RecordFunction*>(span); }
}
