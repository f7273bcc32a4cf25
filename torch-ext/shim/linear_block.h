// The products of linear.cpp, read once for each instruction set: a template cannot take the set as a parameter. SET is the
// compiler's name for it, Vec its register, MM(f) its function f, and SUMS the registers there are for sums.

// out (R, C registers) = bias + x (R, in) * panel (in, 32), of which the first C registers count; fetches LINES lines at
// `next`, which goes on by `step` bytes, for each input.
template <int C, int LINES, int R>
__attribute__((target(SET))) void block(const float* x, const float* panel, const char* next, int64_t step,
                                        const float* bias, float* out, int64_t in, int64_t outs) {
  constexpr int LANES = sizeof(Vec) / sizeof(float);
  Vec sum[R][C];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) sum[r][c] = MM(loadu_ps)(bias + c * LANES);
  for (int64_t k = 0; k < in; k++, panel += PANEL, next += step) {
    Vec weight[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) weight[c] = MM(loadu_ps)(panel + c * LANES);
#pragma GCC unroll 2
    for (int l = 0; l < LINES; l++) _mm_prefetch(next + l * 64, _MM_HINT_T1);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec input = MM(set1_ps)(x[r * in + k]);
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) sum[r][c] = MM(fmadd_ps)(input, weight[c], sum[r][c]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) MM(storeu_ps)(out + r * outs + c * LANES, sum[r][c]);
}

template <int C, int LINES, int... R>
const Block* some(std::integer_sequence<int, R...>) {
  static constexpr Block all[] = {block<C, LINES, R + 1>...};
  return all;
}

template <int C>
Kernel kernel() {
  using Rows = std::make_integer_sequence<int, SUMS / C>;
  return {sizeof(Vec) / sizeof(float) * C, SUMS / C, {some<C, 1>(Rows()), some<C, 2>(Rows())}};
}
