// One step of a residual stream: x += delta, then (x - mean) / sqrt(variance + epsilon) * weight + bias, cast to delta's type. The
// stream is float32 and changed in place. A block has a row; its numbers are read once and stay in registers.
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
      Four<float>::store(what.x + row + at, x[i]);
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
int launch(const NormStep& what, void* stream) {
  return LAUNCH(norm_step_kernel<T>, what.rows, THREADS, stream, what);
}
}  // namespace

int norm_step(const NormStep& what, Type type, void* stream) {
  switch (type) {
    case Type::half: return launch<half>(what, stream);
    case Type::bfloat16: return launch<bfloat16>(what, stream);
    default: return launch<float>(what, stream);
  }
}
}  // namespace kernels
