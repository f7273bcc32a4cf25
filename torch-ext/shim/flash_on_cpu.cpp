// Flash attention for the CPU, sequence by sequence, which libtorch has for cards alone: it is there so that tests can run
// on a CPU what a card is given, and is registered only when a test asks for it.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_flash_attention_backward_ops.h>
#include <ATen/ops/_flash_attention_forward_ops.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>

#include <cmath>

#include "guarded.h"

namespace {
double scale(const Tensor& query) { return 1 / std::sqrt(static_cast<double>(query.size(2))); }

// (tokens, heads, size) of one sequence to (heads, tokens, size) in float32.
Tensor heads(const Tensor& x) { return x.to(at::kFloat).transpose(0, 1); }

// (heads, tokens, tokens): how much of each value a token takes.
Tensor weights(const Tensor& query, const Tensor& key, bool causal) {
  Tensor scores = at::matmul(heads(query), heads(key).transpose(1, 2)).mul(scale(query));
  if (causal) scores = scores.masked_fill(at::ones({query.size(0), query.size(0)}, at::kBool).triu(1), -INFINITY);
  return at::softmax(scores, -1);
}

template <class Each>
void each_sequence(const Tensor& starts, Each&& each) {
  const int* at = starts.const_data_ptr<int>();
  for (int64_t i = 0; i + 1 < starts.numel(); i++) each(at[i], at[i + 1] - at[i]);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& query, const Tensor& key, const Tensor& value, const std::optional<Tensor>& starts,
    const std::optional<Tensor>&, c10::SymInt, c10::SymInt, double dropout, bool causal, bool, std::optional<double>,
    std::optional<c10::SymInt>, std::optional<c10::SymInt>, const std::optional<Tensor>&, const std::optional<Tensor>&) {
  TORCH_CHECK(dropout == 0 && starts, "on a CPU: without dropout, and with the beginnings of the sequences");
  TORCH_CHECK(query.scalar_type() == at::kHalf || query.scalar_type() == at::kBFloat16, "flash attention takes 16 bits");
  Tensor out = at::empty_like(query, at::MemoryFormat::Contiguous);
  each_sequence(*starts, [&](int64_t first, int64_t length) {
    auto of = [&](const Tensor& x) { return x.narrow(0, first, length); };
    of(out).copy_(at::matmul(weights(of(query), of(key), causal), heads(of(value))).transpose(0, 1));
  });
  Tensor nothing = at::empty({0}, at::kFloat);
  return {out, nothing, nothing, nothing, nothing};
}

std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& query, const Tensor& key, const Tensor& value, const Tensor&, const Tensor&,
    const Tensor& starts, const Tensor&, c10::SymInt, c10::SymInt, double, bool causal, const Tensor&, const Tensor&,
    std::optional<double>, std::optional<c10::SymInt>, std::optional<c10::SymInt>) {
  auto like = [](const Tensor& x) { return at::empty_like(x, at::MemoryFormat::Contiguous); };
  std::tuple<Tensor, Tensor, Tensor> out{like(query), like(key), like(value)};
  each_sequence(starts, [&](int64_t first, int64_t length) {
    auto of = [&](const Tensor& x) { return x.narrow(0, first, length); };
    Tensor taken = weights(of(query), of(key), causal), slope = heads(of(grad));
    Tensor of_taken = at::matmul(slope, heads(of(value)).transpose(1, 2));
    Tensor of_scores = taken.mul(of_taken.sub(of_taken.mul(taken).sum(-1, true))).mul(scale(query));
    of(std::get<0>(out)).copy_(at::matmul(of_scores, heads(of(key))).transpose(0, 1));
    of(std::get<1>(out)).copy_(at::matmul(of_scores.transpose(1, 2), heads(of(query))).transpose(0, 1));
    of(std::get<2>(out)).copy_(at::matmul(taken.transpose(1, 2), slope).transpose(0, 1));
  });
  return out;
}

template <class Op, class F>
c10::RegistrationHandleRAII give(F* kernel) {
  auto& dispatcher = c10::Dispatcher::singleton();
  auto op = dispatcher.findSchemaOrThrow(Op::name, Op::overload_name);
  return dispatcher.registerImpl(op.operator_name(), c10::DispatchKey::CPU, c10::KernelFunction::makeFromUnboxedRuntimeFunction(kernel),
                                 c10::impl::CppSignature::make<F>(), nullptr, "notagen-train, for tests");
}
}  // namespace

extern "C" char* te_flash_on_cpu() {
  return guarded([] {
    // Never taken back: at the end of the process the dispatcher may be gone first.
    static auto* first = new auto(give<at::_ops::_flash_attention_forward>(forward));
    static auto* second = new auto(give<at::_ops::_flash_attention_backward>(backward));
  });
}
