// Attention inside sequences of at most 24 tokens, head size 64, a warp for each sequence and head. With P the softmax of
// S = Q K' / 8 over the keys that a query sees, and M the dropout's mask over what it keeps (1 without dropout):
//   O  = (P * M) V
//   dV = (P * M)' dO,  dP = (dO V') * M,  dS = P * (dP - rowsum(P * dP)) / 8,  dQ = dS K,  dK = dS' Q
// One head's arithmetic is too much for plain multiply-adds beside so few bytes, so that products go to the tensor cores, with
// P and dS rounded to 16 bits. All that is summed is summed in float32, by one warp: no atomics, the same result each time.
#include "device.h"
#include "kernels.h"

namespace kernels {
namespace {
constexpr int SIZE = 64, WARPS = 4, PAIRS = 8;
constexpr float LOG2E = 1.4426950408889634f, SCALE = 0.125f;

// Up to GROUPS * 8 tokens of one head. Lane (g, t) holds of each token 8 * group + g the 16-byte chunks t and t + 4, as pairs
// of numbers. As fragments of mma this is a product over the 64 features in an order of its own, the same on both sides.
template <int GROUPS>
struct Tokens {
  uint32_t pairs[GROUPS * PAIRS];
};

template <int GROUPS, class T>
__device__ inline void load(Tokens<GROUPS>& x, const T* head, int64_t row, int length) {
  const int g = lane() / 4, t = lane() % 4;
#pragma unroll
  for (int i = 0; i < GROUPS * 2; i++) {
    const int token = i / 2 * 8 + g;
    uint4 chunk = {0, 0, 0, 0};
    if (token < length) chunk = *reinterpret_cast<const uint4*>(head + token * row + (i % 2 * 4 + t) * 8);
    x.pairs[i * 4] = chunk.x, x.pairs[i * 4 + 1] = chunk.y, x.pairs[i * 4 + 2] = chunk.z, x.pairs[i * 4 + 3] = chunk.w;
  }
}

// Scores: c (queries of the tile, keys of all groups) = q k'. `tile` counts sixteens of queries.
template <int GROUPS, class T>
__device__ inline void products(float (&c)[GROUPS][4], const Tokens<GROUPS>& q, const Tokens<GROUPS>& k, int tile) {
#pragma unroll
  for (int n = 0; n < GROUPS; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) c[n][i] = 0;
#pragma unroll
    for (int step = 0; step < PAIRS; step += 2) {
      const int upper = tile * 2 * PAIRS + step, lower = upper + PAIRS;
      const bool both = tile * 2 + 1 < GROUPS;
      const uint32_t a[4] = {q.pairs[upper], both ? q.pairs[lower] : 0, q.pairs[upper + 1], both ? q.pairs[lower + 1] : 0};
      mma<T>(c[n], a, k.pairs[n * PAIRS + step], k.pairs[n * PAIRS + step + 1]);
    }
  }
}

// N matrices of 8 by 8, of which lane (g, t) holds row g, columns 2t and 2t + 1: each transposed.
template <int N>
__device__ inline void transpose(uint32_t* m, uint32_t* scratch) {
  __syncwarp();  // what was there before has been read
#pragma unroll
  for (int i = 0; i < N; i++) scratch[i * 32 + lane()] = m[i];
  __syncwarp();
#pragma unroll
  for (int i = 0; i < N; i += 4) load_transposed(m + i, scratch + (i + lane() / 8) * 32 + lane() % 8 * 4);
}

// Weights between tokens, in 16 bits: the block (i, j) of 8 by 8 is the pair i * COLUMNS + j.
template <int GROUPS>
struct Weights {
  static constexpr int COLUMNS = (GROUPS + 1) / 2 * 2;
  uint32_t pairs[COLUMNS * COLUMNS] = {};
};

// Writes weights (tokens, tokens) * x (tokens, 64), where `x` holds its blocks transposed.
template <int GROUPS, class T>
__device__ inline void apply(const Weights<GROUPS>& weights, const Tokens<GROUPS>& x, T* head, int64_t row, int length) {
  constexpr int COLUMNS = Weights<GROUPS>::COLUMNS;
  const int g = lane() / 4, t = lane() % 4;
#pragma unroll
  for (int tile = 0; tile < COLUMNS / 2; tile++) {
#pragma unroll
    for (int half_row = 0; half_row < 2; half_row++) {
      uint32_t out[2][4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int pair = half_row * 4 + j;
        float c[4] = {0, 0, 0, 0};
#pragma unroll
        for (int k = 0; k < COLUMNS; k += 2) {
          const uint32_t* upper = weights.pairs + tile * 2 * COLUMNS + k;
          const uint32_t a[4] = {upper[0], upper[COLUMNS], upper[1], upper[COLUMNS + 1]};
          mma<T>(c, a, x.pairs[k * PAIRS + pair], k + 1 < GROUPS ? x.pairs[(k + 1) * PAIRS + pair] : 0);
        }
        out[0][j] = pack<T>(c[0], c[1]), out[1][j] = pack<T>(c[2], c[3]);
      }
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int token = tile * 16 + i * 8 + g;
        if (token < length)
          *reinterpret_cast<uint4*>(head + token * row + (half_row * 4 + t) * 8) = {out[i][0], out[i][1], out[i][2], out[i][3]};
      }
    }
  }
}

// A random number of 32 bits for each place, by the finaliser of splitmix64.
__device__ inline uint64_t mixed(uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
__device__ inline uint64_t after(uint64_t key, uint64_t place) { return mixed(key + (place + 1) * 0x9e3779b97f4a7c15u); }

// Which weights of one sequence and head dropout keeps.
struct Kept {
  uint64_t key;
  uint32_t below;
  float factor;

  __device__ Kept(const ShortAttention& what, int64_t pair) : key(0), below(0), factor(1) {
    if (!what.seed) return;
    key = after(static_cast<uint64_t>(*what.seed), static_cast<uint64_t>(pair));
    below = static_cast<uint32_t>(what.dropout * 4294967296.0f);
    factor = 1 / (1 - what.dropout);
  }
  // What the weight is multiplied by.
  __device__ float operator()(int query, int key_token) const {
    if (!below) return 1;
    return static_cast<uint32_t>(after(key, query * 32 + key_token) >> 32) < below ? 0 : factor;
  }
};

// Scores to probabilities, in place. A lane's four numbers are those of queries g and g + 8, keys 2t and 2t + 1 of the group.
template <int GROUPS>
__device__ inline void softmax(float (&s)[GROUPS][4], int tile, int length, bool causal) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int query = tile * 16 + i * 8 + lane() / 4;
    float most = -INFINITY, total = 0;
#pragma unroll
    for (int n = 0; n < GROUPS; n++)
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const int key = n * 8 + lane() % 4 * 2 + j;
        float& x = s[n][i * 2 + j];
        x = key < length && (!causal || key <= query) ? x * (SCALE * LOG2E) : -INFINITY;
        most = fmaxf(most, x);
      }
    most = over_lanes(most, 1, 2, larger);
#pragma unroll
    for (int n = 0; n < GROUPS; n++)
#pragma unroll
      for (int j = 0; j < 2; j++) total += s[n][i * 2 + j] = exp2f(s[n][i * 2 + j] - most);
    const float inverse = 1 / over_lanes(total, 1, 2, sum);
#pragma unroll
    for (int n = 0; n < GROUPS; n++)
#pragma unroll
      for (int j = 0; j < 2; j++) s[n][i * 2 + j] *= inverse;
  }
}

// The token that the lane's number `i` of key group `n` is about.
__device__ inline int query_of(int tile, int i) { return tile * 16 + i / 2 * 8 + lane() / 4; }
__device__ inline int key_of(int n, int i) { return n * 8 + lane() % 4 * 2 + i % 2; }

template <int GROUPS, class T>
__device__ inline void put(Weights<GROUPS>& weights, int tile, int n, const float (&x)[4]) {
  uint32_t* pairs = weights.pairs + tile * 2 * Weights<GROUPS>::COLUMNS + n;
  pairs[0] = pack<T>(x[0], x[1]), pairs[Weights<GROUPS>::COLUMNS] = pack<T>(x[2], x[3]);
}

// Weights whose rows are the keys.
template <int GROUPS>
__device__ inline void turn(Weights<GROUPS>& weights, uint32_t* scratch) {
  constexpr int COLUMNS = Weights<GROUPS>::COLUMNS;
  transpose<COLUMNS * COLUMNS>(weights.pairs, scratch);
#pragma unroll
  for (int i = 0; i < COLUMNS; i++)
#pragma unroll
    for (int j = 0; j < i; j++) {
      const uint32_t x = weights.pairs[i * COLUMNS + j];
      weights.pairs[i * COLUMNS + j] = weights.pairs[j * COLUMNS + i];
      weights.pairs[j * COLUMNS + i] = x;
    }
}

template <int GROUPS, class T, bool BACKWARD>
__global__ void __launch_bounds__(WARPS * 32) short_attention_kernel(ShortAttention what) {
  constexpr int TILES = (GROUPS + 1) / 2;
  alignas(16) __shared__ uint32_t scratches[WARPS][GROUPS * PAIRS * 32];
  uint32_t* scratch = scratches[threadIdx.x / 32];
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
  const int64_t sequence = pair / what.heads;
  if (sequence >= what.sequences) return;
  const int64_t first = what.starts[sequence];
  const int length = what.starts[sequence + 1] - what.starts[sequence];
  const int64_t hidden = what.heads * SIZE, head = pair % what.heads * SIZE;

  const T* in = static_cast<const T*>(what.qkv) + first * what.row + head;
  Tokens<GROUPS> q, k, v;
  load(q, in, what.row, length);
  load(k, in + hidden, what.row, length);
  load(v, in + 2 * hidden, what.row, length);
  const Kept kept(what, pair);
  Weights<GROUPS> used, slopes;
  if constexpr (!BACKWARD) {
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      float p[GROUPS][4];
      products<GROUPS, T>(p, q, k, tile);
      softmax<GROUPS>(p, tile, length, what.causal);
#pragma unroll
      for (int n = 0; n < GROUPS; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) p[n][i] *= kept(query_of(tile, i), key_of(n, i));
        put<GROUPS, T>(used, tile, n, p[n]);
      }
    }
    transpose<GROUPS * PAIRS>(v.pairs, scratch);
    apply(used, v, static_cast<T*>(what.out) + first * hidden + head, hidden, length);
  } else {
    Tokens<GROUPS> grad;
    load(grad, static_cast<const T*>(what.grad_out) + first * hidden + head, hidden, length);
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      float p[GROUPS][4], d[GROUPS][4], dot[2] = {0, 0};
      products<GROUPS, T>(p, q, k, tile);
      softmax<GROUPS>(p, tile, length, what.causal);
      products<GROUPS, T>(d, grad, v, tile);
#pragma unroll
      for (int n = 0; n < GROUPS; n++) {
        float weights[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float factor = kept(query_of(tile, i), key_of(n, i));
          weights[i] = p[n][i] * factor;
          d[n][i] *= factor;
          dot[i / 2] += p[n][i] * d[n][i];
        }
        put<GROUPS, T>(used, tile, n, weights);
      }
#pragma unroll
      for (int i = 0; i < 2; i++) dot[i] = over_lanes(dot[i], 1, 2, sum);
#pragma unroll
      for (int n = 0; n < GROUPS; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) d[n][i] = p[n][i] * (d[n][i] - dot[i / 2]) * SCALE;
        put<GROUPS, T>(slopes, tile, n, d[n]);
      }
    }
    T* out = static_cast<T*>(what.grad_qkv) + first * 3 * hidden + head;
    transpose<GROUPS * PAIRS>(k.pairs, scratch);
    apply(slopes, k, out, 3 * hidden, length);
    turn(slopes, scratch);
    transpose<GROUPS * PAIRS>(q.pairs, scratch);
    apply(slopes, q, out + hidden, 3 * hidden, length);
    turn(used, scratch);
    transpose<GROUPS * PAIRS>(grad.pairs, scratch);
    apply(used, grad, out + 2 * hidden, 3 * hidden, length);
  }
}

template <int GROUPS, class T>
int launch(const ShortAttention& what, bool backward, void* stream) {
  const int64_t blocks = (what.sequences * what.heads + WARPS - 1) / WARPS;
  if (backward) return LAUNCH((short_attention_kernel<GROUPS, T, true>), blocks, WARPS * 32, stream, what);
  return LAUNCH((short_attention_kernel<GROUPS, T, false>), blocks, WARPS * 32, stream, what);
}
}  // namespace

int short_attention(const ShortAttention& what, Type type, bool backward, void* stream) {
  const bool sixteen = what.longest <= 16;
  if (type == Type::half)
    return sixteen ? launch<2, half>(what, backward, stream) : launch<3, half>(what, backward, stream);
  return sixteen ? launch<2, bfloat16>(what, backward, stream) : launch<3, bfloat16>(what, backward, stream);
}
}  // namespace kernels
