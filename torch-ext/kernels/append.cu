// One new token a row behind kept keys and values, head size 64: keys[row, :, p] = k, values[row, :, p] = v at p = positions[row],
// and out = softmax(q K[..=p]' / 8) V[..=p] in float32. Memory is the bound: eight lanes read a key of 128 bytes at once, a warp
// four of them, and four such reads of keys and of values are under way together. The positions of a long row are spread over
// the warps of a block, each with a softmax of its own, which are put together at the end.
#include "device.h"
#include "kernels.h"

namespace kernels {
namespace {
constexpr int SIZE = 64, CHUNK = 8, AT_ONCE = 4, MOST_WARPS = 8;
constexpr float SCALE = 0.125f * 1.4426950408889634f;  // to the power of two

template <class T>
struct Chunk {
  uint4 bits;
  __device__ void load(const T* from) { bits = *reinterpret_cast<const uint4*>(from); }
  __device__ void store(T* to) const { *reinterpret_cast<uint4*>(to) = bits; }
  __device__ void numbers(float (&x)[CHUNK]) const {
    const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float2 two = unpack<T>(pairs[i]);
      x[2 * i] = two.x, x[2 * i + 1] = two.y;
    }
  }
};
template <>
struct Chunk<float> {
  float4 low, high;
  __device__ void load(const float* from) {
    low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
  }
  __device__ void store(float* to) const {
    reinterpret_cast<float4*>(to)[0] = low, reinterpret_cast<float4*>(to)[1] = high;
  }
  __device__ void numbers(float (&x)[CHUNK]) const {
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w, x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
  }
};

template <class T>
__device__ inline void store_two(T* to, float x, float y) {
  *reinterpret_cast<uint32_t*>(to) = pack<T>(x, y);
}
template <>
__device__ inline void store_two<float>(float* to, float x, float y) {
  to[0] = x, to[1] = y;
}

// A softmax under way over some of a row's positions: the largest score, the sum, and the lane's part of the weighted values.
// The first `most` is finite, so that two of them never differ by what is not a number.
struct Running {
  float most = -1e30f, total = 0, values[CHUNK] = {};

  __device__ void scale_to(float score) {
    const float factor = exp2f(most - score);
    most = score;
    total *= factor;
#pragma unroll
    for (int i = 0; i < CHUNK; i++) values[i] *= factor;
  }
  template <class T>
  __device__ void add(float score, const Chunk<T>& value) {
    const float weight = exp2f(score - most);
    float x[CHUNK];
    value.numbers(x);
    total += weight;
#pragma unroll
    for (int i = 0; i < CHUNK; i++) values[i] += weight * x[i];
  }
};

template <class T>
__device__ inline float score(const float (&q)[CHUNK], const Chunk<T>& key) {
  float x[CHUNK], dot = 0;
  key.numbers(x);
#pragma unroll
  for (int i = 0; i < CHUNK; i++) dot += q[i] * x[i];
  return over_lanes(dot, 1, 4, sum);
}

// `span` warps share a row and head.
template <class T>
__global__ void __launch_bounds__(MOST_WARPS * 32) append_attend_kernel(AppendAttend what, int span) {
  __shared__ float parts[MOST_WARPS][SIZE + 2];
  const int warp = threadIdx.x / 32, part = warp % span, group = lane() / CHUNK, at = lane() % CHUNK * CHUNK;
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32 / span) + warp / span;
  const bool there = pair < what.rows * what.heads;
  const int64_t row = there ? pair / what.heads : 0, head = there ? pair % what.heads : 0;
  int64_t position = what.wide ? static_cast<const int64_t*>(what.positions)[row] : static_cast<const int32_t*>(what.positions)[row];
  if (!there || position < 0 || position >= what.capacity) position = -1;

  Running running;
  if (position >= 0) {
    const T* in = static_cast<const T*>(what.qkv) + row * what.row + head * SIZE + at;
    T* keys = static_cast<T*>(what.keys) + row * what.slot + head * what.head + at;
    T* values = static_cast<T*>(what.values) + row * what.slot + head * what.head + at;
    Chunk<T> query, key, value;
    query.load(in), key.load(in + what.heads * SIZE), value.load(in + 2 * what.heads * SIZE);
    float q[CHUNK];
    query.numbers(q);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) q[i] *= SCALE;
    const float newest = score(q, key);
    if (part == 0 && group == 0) {
      key.store(keys + position * SIZE), value.store(values + position * SIZE);
      running.scale_to(newest);
      running.add(newest, value);
    }
    const int step = span * 32 / CHUNK;
    for (int64_t from = part * 32 / CHUNK + group; from - group < position; from += AT_ONCE * step) {
      Chunk<T> some_keys[AT_ONCE], some_values[AT_ONCE];
      // What lies behind the end is read as the last and then not counted.
#pragma unroll
      for (int i = 0; i < AT_ONCE; i++) {
        const int64_t place = from + i * step < position ? from + i * step : position - 1;
        some_keys[i].load(keys + place * SIZE), some_values[i].load(values + place * SIZE);
      }
      float scores[AT_ONCE], most = running.most;
#pragma unroll
      for (int i = 0; i < AT_ONCE; i++) {
        const float dot = score(q, some_keys[i]);
        scores[i] = from + i * step < position ? dot : -INFINITY;
        most = fmaxf(most, scores[i]);
      }
      running.scale_to(most);
#pragma unroll
      for (int i = 0; i < AT_ONCE; i++) running.add(scores[i], some_values[i]);
    }
    running.scale_to(over_lanes(running.most, 8, 16, larger));
    running.total = over_lanes(running.total, 8, 16, sum);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) running.values[i] = over_lanes(running.values[i], 8, 16, sum);
  }
  if (group == 0) {
#pragma unroll
    for (int i = 0; i < CHUNK; i++) parts[warp][at + i] = running.values[i];
    parts[warp][SIZE] = running.most, parts[warp][SIZE + 1] = running.total;
  }
  __syncthreads();
  if (part != 0 || !there) return;
  float most = -1e30f, total = 0, x = 0, y = 0;
  for (int w = warp; w < warp + span; w++) most = fmaxf(most, parts[w][SIZE]);
  for (int w = warp; w < warp + span; w++) {
    const float factor = exp2f(parts[w][SIZE] - most);
    total += factor * parts[w][SIZE + 1];
    x += factor * parts[w][lane() * 2], y += factor * parts[w][lane() * 2 + 1];
  }
  const float inverse = position < 0 ? 0 : 1 / total;
  store_two(static_cast<T*>(what.out) + pair * SIZE + lane() * 2, x * inverse, y * inverse);
}

template <class T>
int launch(const AppendAttend& what, void* stream) {
  const int64_t pairs = what.rows * what.heads;
  // A warp reads 16 positions at once. A few long rows get more warps each, to fill the card.
  const int span = what.capacity <= 32 ? 1 : pairs >= 1024 ? 4 : MOST_WARPS;
  const int warps = span == 1 ? 4 : span;
  const int64_t each = warps / span, blocks = (pairs + each - 1) / each;
  return LAUNCH(append_attend_kernel<T>, blocks, warps * 32, stream, what, span);
}
}  // namespace

int append_attend(const AppendAttend& what, Type type, void* stream) {
  switch (type) {
    case Type::half: return launch<half>(what, stream);
    case Type::bfloat16: return launch<bfloat16>(what, stream);
    default: return launch<float>(what, stream);
  }
}
}  // namespace kernels
