// One step of a residual stream: x + delta, then (x - mean) / sqrt(variance + epsilon) * weight + bias, cast to delta's type. The
// stream is float32. A block has a row; its numbers are read once and stay in registers. The derivative likewise, by blocks that
// take row after row and add up the gradients of weight and bias as they go.
#include "device.h"
#include "kernels.h"

namespace kernels {
namespace {
constexpr int THREADS = 128, EACH = 4, MOST = 4;  // rows of up to THREADS * EACH * MOST numbers

template <class T>
struct Four {
  static __device__ float4 load(const T* from) {
    const auto* pairs = reinterpret_cast<const uint32_t*>(from);
    const float2 low = unpack<T>(pairs[0]), high = unpack<T>(pairs[1]);
    return {low.x, low.y, high.x, high.y};
  }
  static __device__ void store(T* to, float4 x) {
    auto* pairs = reinterpret_cast<uint32_t*>(to);
    pairs[0] = pack<T>(x.x, x.y), pairs[1] = pack<T>(x.z, x.w);
  }
};
template <>
struct Four<float> {
  static __device__ float4 load(const float* from) { return *reinterpret_cast<const float4*>(from); }
  static __device__ void store(float* to, float4 x) { *reinterpret_cast<float4*>(to) = x; }
};

__device__ inline float over_block(float x, float* parts) {
  x = over_lanes(x, 1, 16, sum);
  if (lane() == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  return parts[0] + parts[1] + (parts[2] + parts[3]);
}

template <class T>
__global__ void __launch_bounds__(THREADS) norm_step_kernel(NormStep what) {
  __shared__ float parts[2][THREADS / 32];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * what.hidden;
  float4 x[MOST];
  float total = 0;
#pragma unroll
  for (int i = 0; i < MOST; i++) {
    const int at = (i * THREADS + threadIdx.x) * EACH;
    x[i] = {0, 0, 0, 0};
    if (at >= what.hidden) continue;
    x[i] = Four<float>::load(what.x + row + at);
    if (what.delta) {
      const float4 d = Four<T>::load(static_cast<const T*>(what.delta) + row + at);
      x[i].x += d.x, x[i].y += d.y, x[i].z += d.z, x[i].w += d.w;
      Four<float>::store(what.sum + row + at, x[i]);
    }
    total += x[i].x + x[i].y + (x[i].z + x[i].w);
  }
  const float mean = over_block(total, parts[0]) / what.hidden;
  float squares = 0;
#pragma unroll
  for (int i = 0; i < MOST; i++) {
    if ((i * THREADS + static_cast<int>(threadIdx.x)) * EACH >= what.hidden) continue;
    x[i].x -= mean, x[i].y -= mean, x[i].z -= mean, x[i].w -= mean;
    squares += x[i].x * x[i].x + x[i].y * x[i].y + (x[i].z * x[i].z + x[i].w * x[i].w);
  }
  const float factor = 1 / sqrtf(over_block(squares, parts[1]) / what.hidden + what.epsilon);
  if (what.stats && threadIdx.x == 0) what.stats[2 * blockIdx.x] = mean, what.stats[2 * blockIdx.x + 1] = factor;
#pragma unroll
  for (int i = 0; i < MOST; i++) {
    const int at = (i * THREADS + threadIdx.x) * EACH;
    if (at >= what.hidden) continue;
    const float4 w = Four<float>::load(what.weight + at), b = Four<float>::load(what.bias + at);
    Four<T>::store(static_cast<T*>(what.out) + row + at, {x[i].x * factor * w.x + b.x, x[i].y * factor * w.y + b.y,
                                                         x[i].z * factor * w.z + b.z, x[i].w * factor * w.w + b.w});
  }
}

template <class T>
__global__ void __launch_bounds__(THREADS) norm_slope_kernel(NormSlope what) {
  // Two of each, in turns: a thread that is ahead writes the next row's while others still read.
  __shared__ float parts[2][2][THREADS / 32];
  float4 grad_weight[MOST] = {}, grad_bias[MOST] = {};
  int turn = 0;
  for (int64_t r = blockIdx.x; r < what.rows; r += what.blocks, turn ^= 1) {
    const int64_t row = r * what.hidden;
    const float mean = what.stats[2 * r], factor = what.stats[2 * r + 1];
    float4 x[MOST], g[MOST];
    float of_one = 0, of_x = 0;
#pragma unroll
    for (int i = 0; i < MOST; i++) {
      const int at = (i * THREADS + threadIdx.x) * EACH;
      if (at >= what.hidden) continue;
      const float4 s = Four<float>::load(what.sum + row + at), w = Four<float>::load(what.weight + at);
      g[i] = Four<T>::load(static_cast<const T*>(what.grad_out) + row + at);
      x[i] = {(s.x - mean) * factor, (s.y - mean) * factor, (s.z - mean) * factor, (s.w - mean) * factor};
      grad_bias[i].x += g[i].x, grad_bias[i].y += g[i].y, grad_bias[i].z += g[i].z, grad_bias[i].w += g[i].w;
      grad_weight[i].x += g[i].x * x[i].x, grad_weight[i].y += g[i].y * x[i].y;
      grad_weight[i].z += g[i].z * x[i].z, grad_weight[i].w += g[i].w * x[i].w;
      g[i].x *= w.x, g[i].y *= w.y, g[i].z *= w.z, g[i].w *= w.w;
      of_one += g[i].x + g[i].y + (g[i].z + g[i].w);
      of_x += g[i].x * x[i].x + g[i].y * x[i].y + (g[i].z * x[i].z + g[i].w * x[i].w);
    }
    of_one = over_lanes(of_one, 1, 16, sum), of_x = over_lanes(of_x, 1, 16, sum);
    if (lane() == 0) parts[turn][0][threadIdx.x / 32] = of_one, parts[turn][1][threadIdx.x / 32] = of_x;
    __syncthreads();
    const float* p = parts[turn][0];
    const float* q = parts[turn][1];
    of_one = (p[0] + p[1] + (p[2] + p[3])) / what.hidden, of_x = (q[0] + q[1] + (q[2] + q[3])) / what.hidden;
#pragma unroll
    for (int i = 0; i < MOST; i++) {
      const int at = (i * THREADS + threadIdx.x) * EACH;
      if (at >= what.hidden) continue;
      float4 d = {0, 0, 0, 0};
      if (what.grad_sum) d = Four<float>::load(what.grad_sum + row + at);
      d.x += factor * (g[i].x - of_one - x[i].x * of_x), d.y += factor * (g[i].y - of_one - x[i].y * of_x);
      d.z += factor * (g[i].z - of_one - x[i].z * of_x), d.w += factor * (g[i].w - of_one - x[i].w * of_x);
      Four<float>::store(what.grad_x + row + at, d);
      Four<T>::store(static_cast<T*>(what.grad_delta) + row + at, d);
    }
  }
  float* mine = what.partial + static_cast<int64_t>(blockIdx.x) * 2 * what.hidden;
#pragma unroll
  for (int i = 0; i < MOST; i++) {
    const int at = (i * THREADS + threadIdx.x) * EACH;
    if (at >= what.hidden) continue;
    Four<float>::store(mine + at, grad_weight[i]);
    Four<float>::store(mine + what.hidden + at, grad_bias[i]);
  }
}

template <class T>
int launch(const NormStep& what, void* stream) {
  return LAUNCH(norm_step_kernel<T>, what.rows, THREADS, stream, what);
}

template <class T>
int launch(const NormSlope& what, void* stream) {
  return LAUNCH(norm_slope_kernel<T>, what.blocks, THREADS, stream, what);
}
}  // namespace

int norm_step(const NormStep& what, Type type, void* stream) {
  switch (type) {
    case Type::half: return launch<half>(what, stream);
    case Type::bfloat16: return launch<bfloat16>(what, stream);
    default: return launch<float>(what, stream);
  }
}

int norm_slope(const NormSlope& what, Type type, void* stream) {
  switch (type) {
    case Type::half: return launch<half>(what, stream);
    case Type::bfloat16: return launch<bfloat16>(what, stream);
    default: return launch<float>(what, stream);
  }
}
}  // namespace kernels
