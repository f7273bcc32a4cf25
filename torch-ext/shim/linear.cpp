// A linear layer in float32 for few rows: the weights lie in panels of 32 outputs, and every panel is read once for
// all rows, the next one being fetched meanwhile. Every output is one chain of fused multiply-adds in the order of the
// inputs: what a row gives does not depend on the other rows.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "guarded.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {
constexpr int64_t PANEL = 32, MOST = 11;

#if defined(__x86_64__)
// out (R, 32) = bias + x (R, in) * panel (in, 32); fetches AHEAD lines of `next` for each input.
template <int R, int AHEAD>
__attribute__((target("avx512f"))) void block(const float* x, const float* panel, const float* next, const float* bias,
                                              float* out, int64_t in, int64_t outs) {
  __m512 sum[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    sum[r][0] = _mm512_loadu_ps(bias);
    sum[r][1] = _mm512_loadu_ps(bias + 16);
  }
  for (int64_t k = 0; k < in; k++, panel += PANEL, next += AHEAD * 16) {
    const __m512 left = _mm512_loadu_ps(panel), right = _mm512_loadu_ps(panel + 16);
    if (AHEAD >= 1) _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
    if (AHEAD >= 2) _mm_prefetch(reinterpret_cast<const char*>(next + 16), _MM_HINT_T1);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const __m512 input = _mm512_set1_ps(x[r * in + k]);
      sum[r][0] = _mm512_fmadd_ps(input, left, sum[r][0]);
      sum[r][1] = _mm512_fmadd_ps(input, right, sum[r][1]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    _mm512_storeu_ps(out + r * outs, sum[r][0]);
    _mm512_storeu_ps(out + r * outs + 16, sum[r][1]);
  }
}

using Block = void (*)(const float*, const float*, const float*, const float*, float*, int64_t, int64_t);
template <int A>
constexpr Block blocks[MOST + 1] = {nullptr,     block<1, A>, block<2, A>, block<3, A>, block<4, A>,  block<5, A>,
                                    block<6, A>, block<7, A>, block<8, A>, block<9, A>, block<10, A>, block<11, A>};

void panels(const float* x, const float* packed, const float* bias, float* out, int64_t rows, int64_t in, int64_t outs) {
  const int64_t n = (rows + MOST - 1) / MOST;
  // A thread is worth waking for a quarter of a million products.
  const int64_t grain = std::max<int64_t>(1, (1 << 18) / std::max<int64_t>(1, rows * in * PANEL));
  at::parallel_for(0, outs / PANEL, grain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; p++) {
      const float* panel = packed + p * in * PANEL;
      const float* next = p + 1 < end ? panel + in * PANEL : panel;
      for (int64_t i = 0; i < n; i++) {
        const int64_t first = rows * i / n, r = rows * (i + 1) / n - first;
        const Block work = n == 1 ? blocks<2>[r] : i < 2 ? blocks<1>[r] : blocks<0>[r];
        work(x + first * in, panel, next + (i < 2 ? i * in * 16 : 0), bias + p * PANEL, out + first * outs + p * PANEL, in,
             outs);
      }
    }
  });
}

bool supported() { return __builtin_cpu_supports("avx512f"); }
#else
void panels(const float*, const float*, const float*, float*, int64_t, int64_t, int64_t) {}
bool supported() { return false; }
#endif
}  // namespace

extern "C" {
int te_linear_supported() { return supported(); }

// x (rows, in), packed (out / 32, in, 32), bias (out), all float32, contiguous and on the CPU.
char* te_linear(Tensor* x, Tensor* packed, Tensor* bias, Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(supported(), "this processor has no AVX-512");
    for (const Tensor* t : {x, packed, bias})
      TORCH_CHECK(t->is_cpu() && t->scalar_type() == at::kFloat && t->is_contiguous(),
                  "a packed linear layer takes contiguous float32 on the CPU");
    TORCH_CHECK(x->dim() == 2 && packed->dim() == 3 && packed->size(2) == PANEL && x->size(1) == packed->size(1) &&
                    bias->numel() == packed->size(0) * PANEL,
                "a packed linear layer of shape ", packed->sizes(), " does not take ", x->sizes());
    Tensor y = at::empty({x->size(0), bias->numel()}, x->options());
    const int64_t rows = x->size(0), in = x->size(1), outs = bias->numel();
    // So many rows at a time as stay in the cache next to a panel.
    for (int64_t first = 0; first < rows; first += 12 * MOST)
      panels(x->data_ptr<float>() + first * in, packed->data_ptr<float>(), bias->data_ptr<float>(),
             y.data_ptr<float>() + first * outs, std::min(12 * MOST, rows - first), in, outs);
    *out = new Tensor(std::move(y));
  });
}
}
