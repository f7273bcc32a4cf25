// A linear layer in float32 for few rows: the weights lie in panels of 32 outputs, and every panel is read once for
// all rows, the next one being fetched meanwhile. Every output is one chain of fused multiply-adds in the order of the
// inputs: what a row gives depends neither on the other rows nor on the instruction set.
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/ops/empty.h>

#include <utility>

#include "guarded.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {
constexpr int64_t PANEL = 32;
// Sets of instructions, as te_linear_set and te_linear have them.
enum Set { NONE, AVX2, AVX512 };

#if defined(__x86_64__)
using Block = void (*)(const float*, const float*, const char*, int64_t, const float*, float*, int64_t, int64_t);
// For `width` outputs of a panel: a block for each number of rows up to `most`, fetching one line for each input or two.
struct Kernel {
  int64_t width, most;
  const Block* blocks[2];
};

namespace avx512 {
using Vec = __m512;
#define SET "avx512f"
#define MM(f) _mm512_##f
#define SUMS 22
#include "linear_block.h"
#undef SET
#undef MM
#undef SUMS
}  // namespace avx512

namespace avx2 {
using Vec = __m256;
#define SET "avx2,fma"
#define MM(f) _mm256_##f
#define SUMS 12
#include "linear_block.h"
}  // namespace avx2

Kernel kernel(Set set, int64_t rows) {
  if (set == AVX512) return avx512::kernel<2>();
  // Sixteen registers hold the sums of six rows with half a panel. One or two rows take the whole panel: with fewer sums
  // the multipliers would wait for them.
  return rows <= 2 ? avx2::kernel<4>() : avx2::kernel<2>();
}

void panels(Set set, const float* x, const float* packed, const float* bias, float* out, int64_t rows, int64_t in,
            int64_t outs) {
  const Kernel k = kernel(set, rows);
  const int64_t n = (rows + k.most - 1) / k.most, passes = n * PANEL / k.width;
  // Memory gives the next panel more slowly than one of many passes could ask for it.
  const int64_t fetching = std::min<int64_t>(passes, 8);
  // A thread is worth waking for a quarter of a million products.
  const int64_t grain = std::max<int64_t>(1, (1 << 18) / std::max<int64_t>(1, rows * in * PANEL));
  at::parallel_for(0, outs / PANEL, grain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; p++) {
      const float* panel = packed + p * in * PANEL;
      const char* next = reinterpret_cast<const char*>(p + 1 < end ? panel + in * PANEL : panel);
      for (int64_t pass = 0; pass < passes; pass++) {
        const int64_t i = pass % n, at = pass / n * k.width, to = p * PANEL + at;
        const int64_t first = rows * i / n, r = rows * (i + 1) / n - first;
        const int64_t step = pass < fetching ? PANEL * sizeof(float) / fetching : 0;
        k.blocks[passes == 1][r - 1](x + first * in, panel + at, next + pass * in * step, step, bias + to,
                                     out + first * outs + to, in, outs);
      }
    }
  });
}

Set widest() {
  return __builtin_cpu_supports("avx512f")                                  ? AVX512
         : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? AVX2
                                                                            : NONE;
}
#else
void panels(Set, const float*, const float*, const float*, float*, int64_t, int64_t, int64_t) {}
Set widest() { return NONE; }
#endif
}  // namespace

extern "C" {
// The set to use: the widest of this processor, or what ATEN_CPU_CAPABILITY leaves of it, which libtorch has read.
char* te_linear_set(int* set) {
  return guarded([&] {
    static const std::string leave = at::get_cpu_capability();
    *set = std::min(widest(), leave == "AVX512" ? AVX512 : leave == "AVX2" ? AVX2 : NONE);
  });
}

// x (rows, in), packed (out / 32, in, 32), bias (out), all float32, contiguous and on the CPU.
char* te_linear(Tensor* x, Tensor* packed, Tensor* bias, int set, Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(set > NONE && set <= widest(), "this processor has not the instructions of set ", set);
    for (const Tensor* t : {x, packed, bias})
      TORCH_CHECK(t->is_cpu() && t->scalar_type() == at::kFloat && t->is_contiguous(),
                  "a packed linear layer takes contiguous float32 on the CPU");
    TORCH_CHECK(x->dim() == 2 && packed->dim() == 3 && packed->size(2) == PANEL && x->size(1) == packed->size(1) &&
                    bias->numel() == packed->size(0) * PANEL,
                "a packed linear layer of shape ", packed->sizes(), " does not take ", x->sizes());
    Tensor y = at::empty({x->size(0), bias->numel()}, x->options());
    const int64_t rows = x->size(0), in = x->size(1), outs = bias->numel();
    // So many rows at a time as stay in the cache next to a panel.
    constexpr int64_t MOST = 132;
    for (int64_t first = 0; first < rows; first += MOST)
      panels(static_cast<Set>(set), x->data_ptr<float>() + first * in, packed->data_ptr<float>(), bias->data_ptr<float>(),
             y.data_ptr<float>() + first * outs, std::min(MOST, rows - first), in, outs);
    *out = new Tensor(std::move(y));
  });
}
}
