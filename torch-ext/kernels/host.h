// A card on a CPU, for tests: the threads of a block are fibres that take turns at barriers and at what a warp does together.
// Blocks run one after the other, so that shared memory is a static variable.
#pragma once
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

using half = c10::Half;
using bfloat16 = c10::BFloat16;
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct uint4 { uint32_t x, y, z, w; };
struct Index { unsigned x; };
constexpr unsigned ALL = 0xffffffffu;

inline Index threadIdx, blockIdx, blockDim;

namespace host {
struct Barrier {
  int size, arrived = 0, turn = 0;
};
// What the lanes of a warp show each other, in turns of two: who writes again has seen that all have read.
struct Warp {
  Barrier barrier{32};
  unsigned char shown[2][32][32];
};
struct Fibre {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(64 << 10);
  int exchanges = 0;
  bool done = false;
};

struct Block {
  ucontext_t scheduler;
  std::vector<Fibre> fibres;
  std::vector<Warp> warps;
  Barrier all{0};
  std::function<void()> kernel;
};
inline Block* block;

inline void wait(Barrier& barrier) {
  const int turn = barrier.turn;
  if (++barrier.arrived == barrier.size) {
    barrier.arrived = 0;
    barrier.turn++;
    return;
  }
  while (barrier.turn == turn) {
    const unsigned thread = threadIdx.x;
    swapcontext(&block->fibres[thread].context, &block->scheduler);
  }
}

inline void start() {
  block->kernel();
  block->fibres[threadIdx.x].done = true;
}

// `mine` to all lanes of the warp; gives what every lane showed.
template <class V>
inline const V (&show(const V& mine))[32] {
  static_assert(sizeof(V) == 32, "a lane shows 32 bytes");
  Warp& warp = block->warps[threadIdx.x / 32];
  auto& shown = warp.shown[block->fibres[threadIdx.x].exchanges++ % 2];
  memcpy(shown[threadIdx.x % 32], &mine, sizeof(V));
  wait(warp.barrier);
  return reinterpret_cast<const V(&)[32]>(shown);
}

inline int launch(int64_t blocks, int threads, std::function<void()> kernel) {
  static std::mutex one;
  std::lock_guard<std::mutex> lock(one);
  for (int64_t b = 0; b < blocks; b++) {
    Block now;
    now.fibres.resize(threads);
    now.warps.resize(threads / 32);
    now.all.size = threads;
    now.kernel = kernel;
    block = &now;
    blockIdx.x = static_cast<unsigned>(b);
    blockDim.x = threads;
    for (auto& fibre : now.fibres) {
      getcontext(&fibre.context);
      fibre.context.uc_stack.ss_sp = fibre.stack.data();
      fibre.context.uc_stack.ss_size = fibre.stack.size();
      fibre.context.uc_link = &now.scheduler;
      makecontext(&fibre.context, start, 0);
    }
    for (bool left = true; left;) {
      left = false;
      for (int t = 0; t < threads; t++) {
        if (now.fibres[t].done) continue;
        left = true;
        threadIdx.x = t;
        swapcontext(&now.scheduler, &now.fibres[t].context);
      }
    }
  }
  return 0;
}

template <class V>
struct Shown {
  V value;
  char rest[32 - sizeof(V)];
};
template <class V>
inline V of_lane(V value, int lane) {
  return show(Shown<V>{value, {}})[lane & 31].value;
}

inline uint16_t part(uint32_t pair, int i) { return static_cast<uint16_t>(pair >> (16 * i)); }
template <class T>
inline float number(uint16_t bits) {
  return static_cast<float>(T(bits, T::from_bits()));
}
}  // namespace host

#define LAUNCH(kernel, blocks, threads, stream, ...) \
  ((void)(stream), host::launch(blocks, threads, [=] { kernel(__VA_ARGS__); }))

inline void __syncthreads() { host::wait(host::block->all); }
inline void __syncwarp() { host::wait(host::block->warps[threadIdx.x / 32].barrier); }
template <class V>
inline V __shfl_xor_sync(unsigned, V value, int distance) {
  return host::of_lane(value, static_cast<int>(threadIdx.x % 32) ^ distance);
}
template <class V>
inline V __shfl_up_sync(unsigned, V value, int distance) {
  const int from = static_cast<int>(threadIdx.x % 32) - distance;
  return host::of_lane(value, from < 0 ? from + distance : from);
}
template <class V>
inline V __shfl_sync(unsigned, V value, int lane) {
  return host::of_lane(value, lane);
}
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

template <class T>
inline float2 unpack(uint32_t pair) {
  return {host::number<T>(host::part(pair, 0)), host::number<T>(host::part(pair, 1))};
}
template <class T>
inline uint32_t pack(float x, float y) {
  return T(x).x | static_cast<uint32_t>(T(y).x) << 16;
}

template <class T>
inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Fragments {
    uint32_t a[4], b[2], rest[2];
  };
  const auto& of = host::show(Fragments{{a[0], a[1], a[2], a[3]}, {b0, b1}, {}});
  const int lane = threadIdx.x % 32;
  for (int i = 0; i < 4; i++) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; k++) {
      const auto left = of[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
      const auto right = of[column * 4 + k % 8 / 2].b[k / 8];
      c[i] += host::number<T>(host::part(left, k % 2)) * host::number<T>(host::part(right, k % 2));
    }
  }
}

inline void load_transposed(uint32_t* m, const uint32_t* row) {
  const auto& of = host::show(host::Shown<const uint32_t*>{row, {}});
  const int lane = threadIdx.x % 32, column = lane / 4, first = lane % 4 * 2;
  for (int i = 0; i < 4; i++) {
    const auto at = [&](int r) { return host::part(of[i * 8 + r].value[column / 2], column % 2); };
    m[i] = at(first) | static_cast<uint32_t>(at(first + 1)) << 16;
  }
}
