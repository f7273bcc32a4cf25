// Attention inside sequences of different lengths that lie behind one another in one tensor.
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/index_select.h>
#include <torch/csrc/autograd/custom_function.h>

#include "guarded.h"

namespace {
// Rows by their numbers, where `back` has, for each row of the input, the place of its only copy that counts.
struct GatherRows : torch::autograd::Function<GatherRows> {
  static Tensor forward(torch::autograd::AutogradContext* ctx, Tensor input, Tensor rows, Tensor back) {
    ctx->save_for_backward({back});
    return at::index_select(input, 0, rows);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    return {at::index_select(grads[0], 0, ctx->get_saved_variables()[0]), Tensor(), Tensor()};
  }
};
}  // namespace

extern "C" {
char* te_attention_of_sequences(const Tensor* query, const Tensor* key, const Tensor* value, const Tensor* starts,
                                int64_t longest, double dropout, int causal, Tensor** out) {
  return guarded([&] {
    auto found = at::_flash_attention_forward(*query, *key, *value, *starts, *starts, longest, longest, dropout, causal != 0, false);
    *out = new Tensor(std::get<0>(found));
  });
}

char* te_gather_rows(const Tensor* input, const Tensor* rows, const Tensor* back, Tensor** out) {
  return guarded([&] { *out = new Tensor(GatherRows::apply(*input, *rows, *back)); });
}
}
