// Linear layers by oneDNN, which libtorch calls from compiled graphs only. They are reached by name.
#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>

#include "guarded.h"

namespace {
using Scalars = c10::List<std::optional<at::Scalar>>;
using Reorder = Tensor(const Tensor&, std::optional<int64_t>);
using Pointwise = Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, c10::string_view, Scalars,
                         std::optional<c10::string_view>);

std::optional<c10::OperatorHandle> find(const char* name) {
  return c10::Dispatcher::singleton().findSchema({name, ""});
}

std::optional<c10::OperatorHandle> reorder() { return find("mkldnn::_reorder_linear_weight"); }
std::optional<c10::OperatorHandle> pointwise() { return find("mkldnn::_linear_pointwise"); }
}  // namespace

extern "C" {
char* te_onednn_supported(int* supported) {
  return guarded([&] { *supported = at::globalContext().userEnabledMkldnn() && reorder() && pointwise(); });
}

// A weight (out, in) in the layout that oneDNN likes best.
char* te_onednn_pack(Tensor* weight, Tensor** out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    *out = new Tensor(reorder().value().typed<Reorder>().call(*weight, std::nullopt));
  });
}

// x (rows, in) with a packed weight and a bias (out), through GELU by the error function if asked for.
char* te_onednn_linear(Tensor* x, Tensor* packed, Tensor* bias, int gelu, Tensor** out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    TORCH_CHECK(x->is_cpu() && x->scalar_type() == at::kFloat && x->dim() == 2 && x->size(1) == packed->size(1),
                "a linear layer of shape ", packed->sizes(), " does not take ", x->sizes());
    *out = new Tensor(pointwise().value().typed<Pointwise>().call(x->contiguous(), *packed, *bias, gelu ? "gelu" : "none",
                                                                  Scalars(), gelu ? "none" : ""));
  });
}
}
