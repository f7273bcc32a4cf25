// Draws a character of 128 a row, as the model's sampling does one operation after the other: softmax; sorted, the first top_k
// (0 keeps all), then those up to and with the one that passes the sum top_p; the power 1 / temperature; in the order of the
// characters the first whose cumulative sum passes uniform * total. EPSILON is added and the total divided out before each step.
// A warp has a row, a lane four numbers next to each other.
#include "device.h"
#include "kernels.h"

namespace kernels {
namespace {
constexpr int CHARACTERS = 128, EACH = 4, WARPS = 4;
constexpr float EPSILON = 1e-12f;

// Larger for the larger number, and for the first of two equal ones.
__device__ inline uint64_t rank_of(float x, int character) {
  const uint32_t bits = __float_as_uint(x);
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | static_cast<uint32_t>(CHARACTERS - 1 - character);
}
__device__ inline int character_of(uint64_t rank) { return CHARACTERS - 1 - static_cast<int>(rank & 0xffffffffu); }
__device__ inline float number_of(uint64_t rank) {
  const auto ordered = static_cast<uint32_t>(rank >> 32);
  return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}

// Largest first (a bitonic sort): number i is that of lane i / EACH.
__device__ inline void sort(uint64_t (&x)[EACH]) {
#pragma unroll
  for (int size = 2; size <= CHARACTERS; size *= 2)
#pragma unroll
    for (int apart = size / 2; apart > 0; apart /= 2) {
      uint64_t other[EACH];
#pragma unroll
      for (int e = 0; e < EACH; e++) other[e] = apart < EACH ? x[e ^ apart] : __shfl_xor_sync(ALL, x[e], apart / EACH);
#pragma unroll
      for (int e = 0; e < EACH; e++) {
        const int i = lane() * EACH + e;
        const bool larger_first = (i & size) == 0, first = (i & apart) == 0;
        const bool take_larger = larger_first == first;
        x[e] = (x[e] > other[e]) == take_larger ? x[e] : other[e];
      }
    }
}

__device__ inline float total(const float (&p)[EACH]) { return over_lanes(p[0] + p[1] + (p[2] + p[3]), 1, 16, sum); }
__device__ inline void divide(float (&p)[EACH]) {
  const float all = total(p);
#pragma unroll
  for (int e = 0; e < EACH; e++) p[e] /= all;
}
__device__ inline void normalise(float (&p)[EACH]) {
#pragma unroll
  for (int e = 0; e < EACH; e++) p[e] = (p[e] > 0 ? p[e] : 0) + EPSILON;  // not a number counts as 0
  divide(p);
}
// Sums up to and with each.
__device__ inline void accumulate(const float (&p)[EACH], float (&sums)[EACH]) {
  float before = 0;
#pragma unroll
  for (int e = 0; e < EACH; e++) sums[e] = before += p[e];
  float up_to = before;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const float lower = __shfl_up_sync(ALL, up_to, d);
    if (lane() >= d) up_to += lower;
  }
#pragma unroll
  for (int e = 0; e < EACH; e++) sums[e] += up_to - before;
}

template <class T>
__device__ inline void load(const T* from, float (&x)[EACH]) {
  const auto* pairs = reinterpret_cast<const uint32_t*>(from);
  const float2 low = unpack<T>(pairs[0]), high = unpack<T>(pairs[1]);
  x[0] = low.x, x[1] = low.y, x[2] = high.x, x[3] = high.y;
}
template <>
__device__ inline void load<float>(const float* from, float (&x)[EACH]) {
#pragma unroll
  for (int e = 0; e < EACH; e++) x[e] = from[e];
}

template <class T>
__global__ void __launch_bounds__(WARPS * 32) draw_kernel(Draw what) {
  __shared__ float rows[WARPS][CHARACTERS];
  float* by_character = rows[threadIdx.x / 32];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
  if (row >= what.rows) return;
  const int64_t fixed = what.fixed[row * what.fixed_row];
  const float* settings = what.settings + row * 3;
  const float top_k = settings[0], top_p = settings[1], temperature = settings[2];

  float p[EACH], sums[EACH];
  uint64_t ranks[EACH];
  load(static_cast<const T*>(what.logits) + row * what.logits_row + lane() * EACH, p);
#pragma unroll
  for (int e = 0; e < EACH; e++) ranks[e] = rank_of(p[e], lane() * EACH + e);
  sort(ranks);
  const uint64_t best = __shfl_sync(ALL, ranks[0], 0);
#pragma unroll
  for (int e = 0; e < EACH; e++) p[e] = expf(number_of(ranks[e]) - number_of(best));
  // Where one logit is not a number, no probability is.
  divide(p);
  normalise(p);
  if (top_k > 0 && top_k < CHARACTERS) {
#pragma unroll
    for (int e = 0; e < EACH; e++)
      if (lane() * EACH + e >= top_k) p[e] = 0;
    divide(p);
  }
  normalise(p);
  if (top_p < 1) {
    accumulate(p, sums);
#pragma unroll
    for (int e = 0; e < EACH; e++)
      if (lane() * EACH + e > 0 && sums[e] - p[e] > top_p) p[e] = 0;
    divide(p);
  }
  normalise(p);
#pragma unroll
  for (int e = 0; e < EACH; e++)
    if (temperature != 1) p[e] = powf(p[e], 1 / temperature);
  divide(p);

#pragma unroll
  for (int e = 0; e < EACH; e++) by_character[character_of(ranks[e])] = p[e];
  __syncwarp();
#pragma unroll
  for (int e = 0; e < EACH; e++) p[e] = by_character[lane() * EACH + e];
  accumulate(p, sums);
  const float at = what.uniform[row * what.uniform_row] * __shfl_sync(ALL, sums[EACH - 1], 31);
  float passed = 0;
#pragma unroll
  for (int e = 0; e < EACH; e++) passed += sums[e] <= at ? 1 : 0;
  const int drawn = static_cast<int>(fminf(over_lanes(passed, 1, 16, sum), CHARACTERS - 1));
  if (lane() == 0) what.out[row * what.out_row] = fixed >= 0 ? fixed : top_k == 1 ? character_of(best) : drawn;
}

template <class T>
int launch(const Draw& what, void* stream) {
  return LAUNCH(draw_kernel<T>, (what.rows + WARPS - 1) / WARPS, WARPS * 32, stream, what);
}
}  // namespace

int draw(const Draw& what, Type type, void* stream) {
  switch (type) {
    case Type::half: return launch<half>(what, stream);
    case Type::bfloat16: return launch<bfloat16>(what, stream);
    default: return launch<float>(what, stream);
  }
}
}  // namespace kernels
