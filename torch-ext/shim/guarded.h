// How the functions of the shim report errors: a message that the caller frees, or NULL. Its first byte says what kind of
// error it is; `Error::of_shim` in src/error.rs reads it. No exception crosses into Rust.
#pragma once
// Not torch/torch.h, which takes fifteen seconds of each file that includes it.
#include <ATen/core/Tensor.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

using at::Tensor;
using List = std::vector<Tensor>;

inline List list(Tensor* const* tensors, size_t n) {
  List out;
  out.reserve(n);
  for (size_t i = 0; i < n; i++) out.push_back(*tensors[i]);
  return out;
}

enum ErrorKind : char { INTERNAL = 'i', ARGUMENT = 'a', OUT_OF_MEMORY = 'm', PEER = 'p', NO_ROOM = '!' };

// `text` with its kind in front. Where there is no memory for that, a constant, which nobody frees.
inline char* error_message(ErrorKind kind, const char* text) noexcept {
  static char no_room[] = {NO_ROOM, 0};
  const size_t length = strlen(text) + 1;
  char* out = static_cast<char*>(malloc(length + 1));
  if (!out) return no_room;
  out[0] = kind;
  memcpy(out + 1, text, length);
  return out;
}

inline void free_message(char* message) noexcept {
  if (message && *message != NO_ROOM) free(message);
}

// Throws what a message says.
[[noreturn]] inline void raise(const char* message) {
  const char* text = *message ? message + 1 : message;
  if (*message == OUT_OF_MEMORY || *message == NO_ROOM) C10_THROW_ERROR(OutOfMemoryError, text);
  if (*message == PEER) C10_THROW_ERROR(DistError, text);
  if (*message == ARGUMENT) C10_THROW_ERROR(ValueError, text);
  C10_THROW_ERROR(Error, text);
}

template <class F>
char* guarded(F&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::OutOfMemoryError& e) {
    return error_message(OUT_OF_MEMORY, e.what_without_backtrace());
  } catch (const c10::DistError& e) {
    return error_message(PEER, e.what_without_backtrace());
  } catch (const c10::ValueError& e) {
    return error_message(ARGUMENT, e.what_without_backtrace());
  } catch (const c10::Error& e) {
    return error_message(INTERNAL, e.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return error_message(OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return error_message(INTERNAL, e.what());
  } catch (...) {
    return error_message(INTERNAL, "libtorch threw something that is not an exception");
  }
}

// For what has no way to report an error.
template <class F>
void unreported(F&& body) noexcept {
  free_message(guarded(std::forward<F>(body)));
}
