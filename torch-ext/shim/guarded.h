// How every function of the shim reports an error: a message that the caller frees with te_free, or NULL.
#pragma once
// Not torch/torch.h, which takes fifteen seconds of each file that includes it.
#include <ATen/core/Tensor.h>

#include <cstdlib>
#include <cstring>

using at::Tensor;

inline char* copy(const char* text) {
  char* out = static_cast<char*>(malloc(strlen(text) + 1));
  if (out) strcpy(out, text);
  return out;
}

template <class F>
char* guarded(F&& body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& e) {
    return copy(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return copy(e.what());
  } catch (...) {
    return copy("libtorch threw something that is not an exception");
  }
}
