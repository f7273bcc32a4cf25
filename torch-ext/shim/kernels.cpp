// Our own kernels for libtorch's tensors: checks, memory, derivatives. With KERNELS_HOST it is the same on a CPU, for tests.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/custom_function.h>
#ifndef KERNELS_HOST
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#endif

#include "../kernels/kernels.h"
#include "guarded.h"

namespace {
constexpr int64_t SIZE = 64, LONGEST = 24, CHARACTERS = 128, MOST_HIDDEN = 2048;

// Queues work on the current stream of the tensor's card.
template <class F>
void queue(const Tensor& on, F&& kernel) {
#ifdef KERNELS_HOST
  TORCH_CHECK(on.is_cpu(), "the kernels of this library are for a CPU");
  kernel(nullptr);
#else
  TORCH_CHECK(on.is_cuda(), "our own kernels are for CUDA devices");
  c10::cuda::CUDAGuard guard(on.device());
  const int status = kernel(c10::cuda::getCurrentCUDAStream(on.device().index()).stream());
  TORCH_CHECK(status == 0, "a kernel could not be launched: ", cudaGetErrorString(static_cast<cudaError_t>(status)));
#endif
}

kernels::Type type_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case at::kHalf: return kernels::Type::half;
    case at::kBFloat16: return kernels::Type::bfloat16;
    case at::kFloat: return kernels::Type::float32;
    default: TORCH_CHECK(false, "our own kernels know no ", t.scalar_type());
  }
}

// Whether rows can be read 16 bytes at a time.
bool in_chunks(const Tensor& t) {
  const int64_t chunk = 16 / t.element_size();
  bool even = reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0 && t.stride(-1) == 1;
  for (int64_t i = 0; i + 1 < t.dim(); i++) even = even && t.stride(i) % chunk == 0;
  return even;
}

void same_device(const Tensor& t, const Tensor& as, at::ScalarType type, const char* name) {
  TORCH_CHECK(t.device() == as.device() && t.scalar_type() == type, name, " must be ", type, " on ", as.device(), ", not ",
              t.scalar_type(), " on ", t.device());
}

kernels::ShortAttention asked(const Tensor& qkv, const Tensor& starts, const Tensor& seed, int64_t heads, int64_t longest,
                              double dropout, bool causal) {
  kernels::ShortAttention what{};
  what.qkv = qkv.const_data_ptr();
  what.starts = starts.const_data_ptr<int32_t>();
  if (seed.defined()) what.seed = seed.const_data_ptr<int64_t>();
  what.sequences = starts.numel() - 1;
  what.row = qkv.stride(0);
  what.heads = static_cast<int>(heads);
  what.longest = static_cast<int>(longest);
  what.dropout = static_cast<float>(dropout);
  what.causal = causal;
  return what;
}

// Keeps its input alone: the probabilities are computed again, and the dropout is drawn again from the same seed.
struct ShortAttention : torch::autograd::Function<ShortAttention> {
  static Tensor forward(torch::autograd::AutogradContext* ctx, Tensor qkv, Tensor starts, int64_t heads, int64_t longest,
                        double dropout, bool causal) {
    if (!in_chunks(qkv)) qkv = qkv.contiguous();
    // On the device, so that a replayed recording draws anew and nobody waits.
    Tensor seed;
    if (dropout > 0) seed = at::randint(INT64_MAX, {1}, qkv.options().dtype(at::kLong));
    Tensor out = at::empty({qkv.size(0), heads * SIZE}, qkv.options());
    auto what = asked(qkv, starts, seed, heads, longest, dropout, causal);
    what.out = out.mutable_data_ptr();
    if (what.sequences > 0)
      queue(qkv, [&](void* stream) { return kernels::short_attention(what, type_of(qkv), false, stream); });
    ctx->save_for_backward({qkv, starts, seed});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["longest"] = longest;
    ctx->saved_data["dropout"] = dropout;
    ctx->saved_data["causal"] = causal;
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const Tensor &qkv = saved[0], &starts = saved[1];
    auto& data = ctx->saved_data;
    Tensor grad = grads[0].to(qkv.scalar_type()).contiguous();
    if (!in_chunks(grad)) grad = grad.clone();
    Tensor grad_qkv = at::empty(qkv.sizes(), qkv.options());
    auto what = asked(qkv, starts, saved[2], data["heads"].toInt(), data["longest"].toInt(), data["dropout"].toDouble(),
                      data["causal"].toBool());
    what.grad_out = grad.const_data_ptr();
    what.grad_qkv = grad_qkv.mutable_data_ptr();
    if (what.sequences > 0)
      queue(qkv, [&](void* stream) { return kernels::short_attention(what, type_of(qkv), true, stream); });
    return {grad_qkv, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};  // one for each argument of forward
  }
};

char* short_attention(const Tensor* qkv, const Tensor* starts, int64_t heads, int64_t longest, double dropout, int causal,
                      Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(qkv->dim() == 2 && heads > 0 && qkv->size(1) == 3 * heads * SIZE && qkv->element_size() == 2,
                "short attention takes (tokens, 3 * heads * 64) in 16 bits, not ", qkv->sizes(), " of ", qkv->scalar_type());
    TORCH_CHECK(longest > 0 && longest <= LONGEST, "short attention is for 1 to ", LONGEST, " tokens, not ", longest);
    TORCH_CHECK(dropout >= 0 && dropout < 1, "dropout is ", dropout);
    same_device(*starts, *qkv, at::kInt, "starts");
    TORCH_CHECK(starts->dim() == 1 && starts->numel() > 0 && starts->is_contiguous(), "starts is (sequences + 1)");
    *out = new Tensor(ShortAttention::apply(*qkv, *starts, heads, longest, dropout, causal != 0));
  });
}

char* append_attend(const Tensor* qkv, const Tensor* keys, const Tensor* values, const Tensor* positions, Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(qkv->dim() == 2 && keys->dim() == 4 && keys->sizes() == values->sizes() && keys->size(3) == SIZE &&
                    qkv->size(1) == 3 * keys->size(1) * SIZE && qkv->size(0) <= keys->size(0),
                "rows of ", qkv->sizes(), " do not go behind keys of ", keys->sizes(), " and values of ", values->sizes());
    TORCH_CHECK(in_chunks(*qkv) && in_chunks(*keys) && in_chunks(*values) && keys->stride(2) == SIZE &&
                    keys->strides() == values->strides(),
                "keys and values lie position by position, alike, and begin at 16 bytes");
    same_device(*keys, *qkv, qkv->scalar_type(), "keys");
    same_device(*values, *qkv, qkv->scalar_type(), "values");
    const bool wide = positions->scalar_type() == at::kLong;
    same_device(*positions, *qkv, wide ? at::kLong : at::kInt, "positions");
    TORCH_CHECK(positions->dim() == 1 && positions->is_contiguous() && positions->numel() == qkv->size(0),
                "positions is (rows), not ", positions->sizes());
    Tensor result = at::empty({qkv->size(0), keys->size(1) * SIZE}, qkv->options());
    kernels::AppendAttend what{};
    what.qkv = qkv->const_data_ptr();
    what.keys = keys->mutable_data_ptr();
    what.values = values->mutable_data_ptr();
    what.positions = positions->const_data_ptr();
    what.out = result.mutable_data_ptr();
    what.rows = qkv->size(0);
    what.row = qkv->stride(0);
    what.slot = keys->stride(0);
    what.head = keys->stride(1);
    what.heads = static_cast<int>(keys->size(1));
    what.capacity = static_cast<int>(keys->size(2));
    what.wide = wide;
    if (what.rows > 0) queue(*qkv, [&](void* stream) { return kernels::append_attend(what, type_of(*qkv), stream); });
    *out = new Tensor(std::move(result));
  });
}

char* draw(const Tensor* logits, const Tensor* uniform, const Tensor* settings, const Tensor* fixed, const Tensor* out) {
  return guarded([&] {
    const int64_t rows = logits->dim() == 2 ? logits->size(0) : -1;
    TORCH_CHECK(rows >= 0 && logits->size(1) == CHARACTERS && logits->stride(1) == 1 && logits->stride(0) % 2 == 0 &&
                    reinterpret_cast<uintptr_t>(logits->const_data_ptr()) % 4 == 0,
                "characters are drawn from logits of (rows, 128), not ", logits->sizes());
    same_device(*uniform, *logits, at::kFloat, "uniform");
    same_device(*settings, *logits, at::kFloat, "settings");
    same_device(*fixed, *logits, at::kLong, "fixed");
    same_device(*out, *logits, at::kLong, "out");
    for (const Tensor* t : {uniform, fixed, out})
      TORCH_CHECK(t->dim() == 1 && t->size(0) == rows, "one number a row is needed, not ", t->sizes());
    TORCH_CHECK(settings->dim() == 2 && settings->size(0) == rows && settings->size(1) == 3 && settings->is_contiguous(),
                "settings is (rows, 3), not ", settings->sizes());
    kernels::Draw what{};
    what.logits = logits->const_data_ptr();
    what.uniform = uniform->const_data_ptr<float>();
    what.settings = settings->const_data_ptr<float>();
    what.fixed = fixed->const_data_ptr<int64_t>();
    what.out = out->mutable_data_ptr<int64_t>();
    what.rows = rows;
    what.logits_row = logits->stride(0);
    what.uniform_row = uniform->stride(0);
    what.fixed_row = fixed->stride(0);
    what.out_row = out->stride(0);
    if (rows > 0) queue(*logits, [&](void* stream) { return kernels::draw(what, type_of(*logits), stream); });
  });
}

// Into `sum` goes x + delta, and into `stats`, where it is defined, what the derivative needs of each row.
Tensor norm(const Tensor& x, const Tensor& delta, const Tensor& weight, const Tensor& bias, double epsilon, at::ScalarType kind,
            const Tensor& sum, const Tensor& stats) {
  same_device(x, x, at::kFloat, "a residual stream");
  TORCH_CHECK(x.dim() == 2 && x.is_contiguous() && x.size(1) % 8 == 0 && x.size(1) <= MOST_HIDDEN && in_chunks(x),
              "a residual stream is (rows, hidden), with a hidden size of up to ", MOST_HIDDEN, ", not ", x.sizes());
  kernels::NormStep what{};
  if (delta.defined()) {
    same_device(delta, x, kind, "delta");
    TORCH_CHECK(delta.sizes() == x.sizes() && delta.is_contiguous() && in_chunks(delta), "delta is of another shape");
    what.delta = delta.const_data_ptr();
  }
  for (const Tensor* t : {&weight, &bias}) {
    same_device(*t, x, at::kFloat, "a norm's weight");
    TORCH_CHECK(t->numel() == x.size(1) && t->is_contiguous() && in_chunks(*t), "a norm's weight is (hidden)");
  }
  Tensor out = at::empty(x.sizes(), x.options().dtype(kind));
  what.x = x.const_data_ptr<float>();
  what.sum = sum.mutable_data_ptr<float>();
  if (stats.defined()) what.stats = stats.mutable_data_ptr<float>();
  what.weight = weight.const_data_ptr<float>();
  what.bias = bias.const_data_ptr<float>();
  what.out = out.mutable_data_ptr();
  what.rows = x.size(0);
  what.hidden = static_cast<int>(x.size(1));
  what.epsilon = static_cast<float>(epsilon);
  if (what.rows > 0) queue(x, [&](void* stream) { return kernels::norm_step(what, type_of(out), stream); });
  return out;
}

char* norm_step(const Tensor* x, const Tensor* delta, const Tensor* weight, const Tensor* bias, double epsilon, int type,
                Tensor** out) {
  return guarded([&] {
    const auto kind = static_cast<at::ScalarType>(type);
    *out = new Tensor(norm(*x, delta ? *delta : Tensor(), *weight, *bias, epsilon, kind, *x, Tensor()));
  });
}

// Blocks of the derivative: enough to fill a card, and few enough that their parts of a sum are little to add up.
constexpr int64_t MOST_BLOCKS = 528, LEAST_ROWS = 16;

// Keeps the sum, and a mean and a deviation a row.
struct AddNorm : torch::autograd::Function<AddNorm> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx, Tensor x, Tensor delta, Tensor weight,
                                                Tensor bias, double epsilon) {
    if (!in_chunks(x) || !x.is_contiguous()) x = x.clone(at::MemoryFormat::Contiguous);
    if (!in_chunks(delta) || !delta.is_contiguous()) delta = delta.clone(at::MemoryFormat::Contiguous);
    Tensor sum = at::empty(x.sizes(), x.options()), stats = at::empty({x.size(0), 2}, x.options());
    Tensor out = norm(x, delta, weight, bias, epsilon, delta.scalar_type(), sum, stats);
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({sum, stats, weight});
    ctx->saved_data["kind"] = static_cast<int64_t>(out.scalar_type());
    return {sum, out};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const Tensor &sum = saved[0], &stats = saved[1], &weight = saved[2];
    const auto kind = static_cast<at::ScalarType>(ctx->saved_data["kind"].toInt());
    auto ready = [&](const Tensor& grad, at::ScalarType type) {
      Tensor t = grad.to(type).contiguous();
      return in_chunks(t) ? t : t.clone();
    };
    if (!grads[1].defined()) {  // the sum alone is used
      Tensor grad = grads[0];
      return {grad, grad.defined() ? grad.to(kind) : grad, Tensor(), Tensor(), Tensor()};
    }
    Tensor grad_out = ready(grads[1], kind), grad_sum;
    kernels::NormSlope what{};
    if (grads[0].defined()) {
      grad_sum = ready(grads[0], at::kFloat);
      what.grad_sum = grad_sum.const_data_ptr<float>();
    }
    what.rows = sum.size(0);
    what.hidden = static_cast<int>(sum.size(1));
    what.blocks = static_cast<int>(std::clamp<int64_t>(what.rows / LEAST_ROWS, 1, MOST_BLOCKS));
    Tensor grad_x = at::empty(sum.sizes(), sum.options()), grad_delta = at::empty(sum.sizes(), sum.options().dtype(kind));
    Tensor partial = at::empty({what.blocks, 2, what.hidden}, sum.options());
    what.sum = sum.const_data_ptr<float>();
    what.stats = stats.const_data_ptr<float>();
    what.weight = weight.const_data_ptr<float>();
    what.grad_out = grad_out.const_data_ptr();
    what.grad_x = grad_x.mutable_data_ptr<float>();
    what.grad_delta = grad_delta.mutable_data_ptr();
    what.partial = partial.mutable_data_ptr<float>();
    queue(sum, [&](void* stream) { return kernels::norm_slope(what, type_of(grad_delta), stream); });
    Tensor total = at::sum(partial, {0});
    return {grad_x, grad_delta, total.select(0, 0), total.select(0, 1), Tensor()};
  }
};

char* add_norm(const Tensor* x, const Tensor* delta, const Tensor* weight, const Tensor* bias, double epsilon, Tensor** sum,
               Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(delta->element_size() == 2, "what is added to a residual stream has 16 bits here, not ", delta->scalar_type());
    auto results = AddNorm::apply(*x, *delta, *weight, *bias, epsilon);
    *sum = new Tensor(std::move(results[0]));
    *out = new Tensor(std::move(results[1]));
  });
}
}  // namespace

extern "C" const struct {
  char* (*short_attention)(const Tensor*, const Tensor*, int64_t, int64_t, double, int, Tensor**);
  char* (*append_attend)(const Tensor*, const Tensor*, const Tensor*, const Tensor*, Tensor**);
  char* (*draw)(const Tensor*, const Tensor*, const Tensor*, const Tensor*, const Tensor*);
  char* (*norm_step)(const Tensor*, const Tensor*, const Tensor*, const Tensor*, double, int, Tensor**);
  char* (*add_norm)(const Tensor*, const Tensor*, const Tensor*, const Tensor*, double, Tensor**, Tensor**);
} te_kernels = {short_attention, append_attend, draw, norm_step, add_norm};
