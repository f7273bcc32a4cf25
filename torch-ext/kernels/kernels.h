// What the kernels are asked for, as plain data: the sources that nvcc compiles see nothing of libtorch. Pointers are of the
// device, counts and strides in elements. Every function only queues its work on `stream` and returns a cudaError_t, 0 for success.
#pragma once
#include <cstdint>

namespace kernels {
enum class Type { half, bfloat16, float32 };

// Attention inside short sequences of packed tokens, head size 64.
struct ShortAttention {
  const void *qkv, *grad_out;  // (tokens, 3 * heads * 64), rows `row` apart; (tokens, heads * 64)
  void *out, *grad_qkv;        // (tokens, heads * 64); (tokens, 3 * heads * 64)
  const int32_t* starts;       // (sequences + 1)
  const int64_t* seed;         // one number; null without dropout
  int64_t sequences, row;
  int heads, longest;  // `longest` is 24 at most
  float dropout;
  bool causal;
};
int short_attention(const ShortAttention& what, Type type, bool backward, void* stream);

// Writes each row's key and value at its position and attends to all up to it, head size 64.
struct AppendAttend {
  const void* qkv;        // (rows, 3 * heads * 64), rows `row` apart
  void *keys, *values;    // (slots, heads, capacity, 64), slots and heads `slot` and `head` apart
  const void* positions;  // (rows); a row whose position is outside the cache gives zeros
  void* out;              // (rows, heads * 64)
  int64_t rows, row, slot, head;
  int heads, capacity;
  bool wide;  // positions are int64, not int32
};
int append_attend(const AppendAttend& what, Type type, void* stream);

// Draws one of 128 characters a row.
struct Draw {
  const void* logits;     // (rows, 128), rows `logits_row` apart
  const float* uniform;   // (rows), `uniform_row` apart
  const float* settings;  // (rows, 3): top_k, top_p, temperature
  const int64_t* fixed;   // (rows), `fixed_row` apart: what a row gives, or -1 to draw
  int64_t* out;           // (rows), `out_row` apart
  int64_t rows, logits_row, uniform_row, fixed_row, out_row;
};
int draw(const Draw& what, Type type, void* stream);

// Adds to a residual stream and norms it: rows of up to 2,048 numbers, a multiple of 4.
struct NormStep {
  const float* x;     // (rows, hidden)
  const void* delta;  // (rows, hidden), or null
  float* sum;         // (rows, hidden), x + delta where there is one; may be x
  float* stats;       // (rows, 2): mean and 1 / deviation; null where nobody asks
  const float *weight, *bias;
  void* out;  // (rows, hidden)
  int64_t rows;
  int hidden;
  float epsilon;
};
int norm_step(const NormStep& what, Type type, void* stream);

// Its derivative, from what it gave and the gradients of both results.
struct NormSlope {
  const float *sum, *stats, *weight;
  const void* grad_out;   // (rows, hidden)
  const float* grad_sum;  // (rows, hidden), or null
  float* grad_x;          // (rows, hidden)
  void* grad_delta;       // (rows, hidden): the same in another type
  float* partial;         // (blocks, 2, hidden): each block's part of the gradients of weight and bias
  int64_t rows;
  int hidden, blocks;
};
int norm_slope(const NormSlope& what, Type type, void* stream);
}  // namespace kernels
