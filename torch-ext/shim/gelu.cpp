// GELU in its tanh form on a CPU, x / (1 + exp(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3), and its derivative.
// libtorch's calls a library's tanh, which takes longer than the rest of the function together.
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <torch/csrc/autograd/custom_function.h>

#include "guarded.h"

namespace {
// So many elements at a time, the last of them too: what an element gives does not depend on its place.
constexpr int64_t BLOCK = 64;

inline __attribute__((always_inline)) float read(const float* from) { return *from; }
inline __attribute__((always_inline)) float read(const c10::BFloat16* from) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(from->x) << 16);
}
inline __attribute__((always_inline)) void write(float* to, float value) { *to = value; }
inline __attribute__((always_inline)) void write(c10::BFloat16* to, float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  // To the nearest, and to even between two; what is not a number stays none.
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to->x = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

// To 2 units in the last place; beyond the limits as at them.
inline __attribute__((always_inline)) float exponential(float x) {
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  const float n = __builtin_rintf(x * 1.44269504f);
  const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  float p = 1.9875691e-4f;
  p = p * r + 1.3981999e-3f;
  p = p * r + 8.3334519e-3f;
  p = p * r + 4.1665796e-2f;
  p = p * r + 1.6666666e-1f;
  p = p * r + 5.0000000e-1f;
  p = p * r * r + r + 1.0f;
  return p * __builtin_bit_cast(float, (static_cast<int32_t>(n) + 127) << 23);
}

constexpr float C = 0.79788456f, CUBE = 0.044715f;

inline __attribute__((always_inline)) float value(float x) {
  return x / (1.0f + exponential(-2.0f * C * (x + CUBE * x * x * x)));
}

inline __attribute__((always_inline)) float slope(float x) {
  const float s = 1.0f / (1.0f + exponential(-2.0f * C * (x + CUBE * x * x * x)));
  return s + x * s * (1.0f - s) * (2.0f * C * (1.0f + 3.0f * CUBE * x * x));
}

// GCC makes vectors of these, for each set of instructions; it needs to be told that no comparison is there to trap.
#define LOOPS(name, set)                                                                                                \
  template <class T>                                                                                                    \
  __attribute__((target(set), optimize("O3", "no-trapping-math", "no-math-errno"))) void forward_##name(                \
      const T* x, T* y, int64_t n) {                                                                                    \
    for (int64_t i = 0; i < n; i++) write(y + i, value(read(x + i)));                                                   \
  }                                                                                                                     \
  template <class T>                                                                                                    \
  __attribute__((target(set), optimize("O3", "no-trapping-math", "no-math-errno"))) void backward_##name(               \
      const T* x, const T* grad, T* out, int64_t n) {                                                                   \
    for (int64_t i = 0; i < n; i++) write(out + i, read(grad + i) * slope(read(x + i)));                                \
  }
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
LOOPS(avx512, "avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
LOOPS(avx2, "avx2,fma")

// 0 for none of ours, as ATEN_CPU_CAPABILITY and the processor have it.
int set() {
  static const std::string leave = at::get_cpu_capability();
  const bool avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (leave == "AVX512" && avx512) return 2;
  return (leave == "AVX512" || leave == "AVX2") && __builtin_cpu_supports("fma") ? 1 : 0;
}

template <class T>
void forward_block(int set, const T* x, T* y, int64_t n) {
  set == 2 ? forward_avx512(x, y, n) : forward_avx2(x, y, n);
}

template <class T>
void backward_block(int set, const T* x, const T* grad, T* out, int64_t n) {
  set == 2 ? backward_avx512(x, grad, out, n) : backward_avx2(x, grad, out, n);
}
#else
int set() { return 0; }
template <class T>
void forward_block(int, const T*, T*, int64_t) {}
template <class T>
void backward_block(int, const T*, const T*, T*, int64_t) {}
#endif

// Runs `block` over the whole blocks in place and over the rest in a block of its own.
template <class T, size_t N, class F>
void over(std::array<const T*, N> in, T* out, int64_t count, const F& block) {
  at::parallel_for(0, (count + BLOCK - 1) / BLOCK, 256, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * BLOCK, whole = std::min(end * BLOCK, count / BLOCK * BLOCK) - first;
    if (whole > 0) {
      auto from = in;
      for (auto& p : from) p += first;
      block(from, out + first, whole);
    }
    const int64_t done = first + std::max<int64_t>(whole, 0), rest = std::min(end * BLOCK, count) - done;
    if (rest <= 0) return;
    T inputs[N][BLOCK] = {}, outputs[BLOCK];
    std::array<const T*, N> from;
    for (size_t i = 0; i < N; i++) {
      std::copy_n(in[i] + done, rest, inputs[i]);
      from[i] = inputs[i];
    }
    block(from, outputs, BLOCK);
    std::copy_n(outputs, rest, out + done);
  });
}

template <class F>
void of_kind(const Tensor& x, const F& f) {
  if (x.scalar_type() == at::kFloat)
    f(float());
  else
    f(c10::BFloat16());
}

struct Gelu : torch::autograd::Function<Gelu> {
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& input) {
    const Tensor x = input.contiguous();
    ctx->save_for_backward({x});
    Tensor y = at::empty_like(x);
    of_kind(x, [&](auto zero) {
      using T = decltype(zero);
      over<T, 1>({x.const_data_ptr<T>()}, y.mutable_data_ptr<T>(), x.numel(),
                 [](auto in, T* out, int64_t n) { forward_block(set(), in[0], out, n); });
    });
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    const Tensor x = ctx->get_saved_variables()[0], grad = grads[0].to(x.scalar_type()).contiguous();
    Tensor out = at::empty_like(x);
    of_kind(x, [&](auto zero) {
      using T = decltype(zero);
      over<T, 2>({x.const_data_ptr<T>(), grad.const_data_ptr<T>()}, out.mutable_data_ptr<T>(), x.numel(),
                 [](auto in, T* out, int64_t n) { backward_block(set(), in[0], in[1], out, n); });
    });
    return {out};
  }
};
}  // namespace

extern "C" char* te_gelu(Tensor* x, Tensor** out) {
  return guarded([&] {
    const bool ours = set() > 0 && x->is_cpu() && (x->scalar_type() == at::kFloat || x->scalar_type() == at::kBFloat16);
    *out = new Tensor(ours ? Gelu::apply(*x) : at::gelu(*x, "tanh"));
  });
}
