// Which operators of libtorch this thread calls, and how often.
#include <ATen/record_function.h>

#include <map>

#include "guarded.h"

namespace {
// Of each, the calls, and those that no other operator made.
thread_local std::map<std::string, std::pair<size_t, size_t>> calls;
thread_local int depth = 0;

std::unique_ptr<at::ObserverContext> enter(const at::RecordFunction& function) {
  auto& [all, outer] = calls[function.name()];
  all++;
  if (depth++ == 0) outer++;
  return nullptr;
}

void leave(const at::RecordFunction&, at::ObserverContext*) { depth--; }
}  // namespace

extern "C" {
char* te_calls_begin(uint64_t* handle) {
  return guarded([&] {
    calls.clear();
    depth = 0;
    *handle = at::addThreadLocalCallback(at::RecordFunctionCallback(enter, leave).scopes({at::RecordScope::FUNCTION}));
  });
}

// A line an operator, its two numbers and its name, which the caller frees with te_free.
char* te_calls_end(uint64_t handle, char** text) {
  return guarded([&] {
    at::removeCallback(handle);
    std::string lines;
    for (auto& [name, number] : calls) {
      lines += std::to_string(number.first) + " " + std::to_string(number.second) + " " + name + "\n";
    }
    *text = strdup(lines.c_str());
    if (!*text) throw std::bad_alloc();
  });
}
}
