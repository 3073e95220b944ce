#include "dynvit/ops/residual_norm.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/residual_norm.hpp"
#endif

namespace dynvit {
namespace {

at::ScalarType compute_type(const at::Tensor& x) {
    return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

void check_shapes(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& scale, const at::Tensor& weight,
                  const at::Tensor& bias) {
    TORCH_CHECK(x.dim() >= 2, "x must be (B, n, C) or (rows, C)");
    TORCH_CHECK(!branch.defined() || branch.sizes() == x.sizes(), "branch must have x's shape");
    TORCH_CHECK(!scale.defined() || (x.dim() == 3 && scale.sizes() == at::IntArrayRef({x.size(0), 1, 1})),
                "scale must be (B, 1, 1)");
    TORCH_CHECK(weight.sizes() == at::IntArrayRef({x.size(-1)}) && bias.sizes() == weight.sizes(),
                "weight and bias must be (C)");
}

#ifdef DYNVIT_CUDA_KERNELS
using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

struct ResidualNorm : torch::autograd::Function<ResidualNorm> {
    // Without a branch the sum is x; autograd then returns a view of it, so that its gradient too comes by here.
    static variable_list forward(AutogradContext* context, const Variable& x, const Variable& weight,
                                 const Variable& bias, const std::optional<Variable>& given_branch,
                                 const std::optional<Variable>& given_scale, double epsilon, at::ScalarType output) {
        const at::Tensor branch = given_branch.value_or(at::Tensor()), scale = given_scale.value_or(at::Tensor());
        const auto [sum, normed, statistics, unused] =
            cuda::residual_norm_forward(x, branch, scale, weight, bias, epsilon, output, true);
        context->save_for_backward({sum, statistics, scale, weight});
        context->saved_data["branch_type"] = static_cast<std::int64_t>((branch.defined() ? branch : x).scalar_type());
        context->saved_data["has_branch"] = branch.defined();
        context->set_materialize_grads(false);
        return {sum, normed};
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const variable_list saved = context->get_saved_variables();
        const at::Tensor &sum = saved[0], &statistics = saved[1], &scale = saved[2], &weight = saved[3];
        const at::Tensor &to_sum = gradients[0], &to_normed = gradients[1];
        const auto branch_type = static_cast<at::ScalarType>(context->saved_data["branch_type"].toInt());
        const bool wants_branch = context->saved_data["has_branch"].toBool() && context->needs_input_grad(3);
        variable_list inputs(7);  // as forward's arguments: x, weight, bias, branch; none for the others
        if (to_normed.defined()) {
            const bool wants_weight = context->needs_input_grad(1) || context->needs_input_grad(2);
            const auto [x, branch, to_weight, to_bias] =
                cuda::residual_norm_backward(to_sum, to_normed, sum, statistics, scale, weight, branch_type,
                                             {context->needs_input_grad(0), wants_branch, wants_weight});
            inputs[0] = x;
            inputs[3] = branch;
            if (wants_weight) {
                inputs[1] = to_weight.to(weight.scalar_type());
                inputs[2] = to_bias.to(weight.scalar_type());
            }
        } else if (to_sum.defined()) {
            inputs[0] = to_sum;
            if (wants_branch) inputs[3] = (scale.defined() ? to_sum * scale : to_sum).to(branch_type);
        }
        return inputs;
    }
};
#endif

}  // namespace

NormedResidual residual_norm_plain(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& scale,
                                   const at::Tensor& weight, const at::Tensor& bias, double epsilon,
                                   at::ScalarType output) {
    check_shapes(x, branch, scale, weight, bias);
    const at::ScalarType type = compute_type(x);
    at::Tensor sum = x;
    if (branch.defined()) {  // a half branch times float32 is float32
        sum = (x.to(type) + (scale.defined() ? branch * scale.to(type) : branch)).to(x.scalar_type());
    }
    const at::Tensor normed = at::layer_norm(sum.to(type), weight.sizes(), weight.to(type), bias.to(type), epsilon);
    return {sum, normed.to(output)};
}

NormedResidual residual_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& scale,
                             const at::Tensor& weight, const at::Tensor& bias, double epsilon, at::ScalarType output) {
#ifdef DYNVIT_CUDA_KERNELS
    check_shapes(x, branch, scale, weight, bias);
    if (cuda::residual_norm_supports(x, branch, scale, weight, bias, output)) {
        const auto wants = [](const at::Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); };
        if (at::GradMode::is_enabled() && (wants(x) || wants(branch) || wants(weight) || wants(bias))) {
            const auto given = [](const at::Tensor& tensor) {
                return tensor.defined() ? std::optional(tensor) : std::nullopt;
            };
            const variable_list results =
                ResidualNorm::apply(x, weight, bias, given(branch), given(scale), epsilon, output);
            return {results[0], results[1]};
        }
        const auto result = cuda::residual_norm_forward(x, branch, scale, weight, bias, epsilon, output, false);
        return {result.sum, result.normed};
    }
#endif
    return residual_norm_plain(x, branch, scale, weight, bias, epsilon, output);
}

}  // namespace dynvit
