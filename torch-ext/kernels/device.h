// What the kernels use of a card, by its own names where it has some. host.h has the same for a CPU.
#pragma once
#include <cstdint>

#ifdef KERNELS_HOST
#include "host.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

using half = __half;
using bfloat16 = __nv_bfloat16;
constexpr unsigned ALL = 0xffffffffu;  // lanes of a warp

#define LAUNCH(kernel, blocks, threads, stream, ...) \
  (kernel<<<static_cast<unsigned>(blocks), threads, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__), \
   static_cast<int>(cudaGetLastError()))

template <class T>
__device__ inline float2 unpack(uint32_t pair);
template <>
__device__ inline float2 unpack<half>(uint32_t pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}
template <>
__device__ inline float2 unpack<bfloat16>(uint32_t pair) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
}

template <class T>
__device__ inline uint32_t pack(float x, float y);
template <>
__device__ inline uint32_t pack<half>(float x, float y) {
  const __half2 pair = __floats2half2_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
template <>
__device__ inline uint32_t pack<bfloat16>(float x, float y) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// c (16, 8) += a (16, 16) * b (16, 8), in the layout that PTX gives mma.m16n8k16. All lanes take part.
template <class T>
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
#define MMA(T, name)                                                                                              \
  template <>                                                                                                     \
  __device__ inline void mma<T>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {                \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name                                           \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                           \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                 \
  }
MMA(half, "f16")
MMA(bfloat16, "bf16")
#undef MMA

// Four matrices of 8 by 8 from shared memory, transposed: lane l has the address of row l % 8 of matrix l / 8.
__device__ inline void load_transposed(uint32_t* m, const uint32_t* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address)
               : "memory");
}
#endif

// The lane's number in its warp.
__device__ inline int lane() { return threadIdx.x % 32; }

__device__ inline float larger(float a, float b) { return fmaxf(a, b); }
__device__ inline float sum(float a, float b) { return a + b; }

// One of the above over groups of lanes that lie `from`, 2 * `from`, … up to `to` apart; every lane gets the result.
template <class F>
__device__ inline float over_lanes(float x, int from, int to, F f) {
  for (int d = from; d <= to; d *= 2) x = f(x, __shfl_xor_sync(ALL, x, d));
  return x;
}
