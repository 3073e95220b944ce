#include "dynvit/ops/masked_attention.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/policy_softmax.hpp"
#endif

namespace dynvit {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// G, (B, 1, N, N): the policy of the column, 1 on the diagonal.
at::Tensor visibility(const at::Tensor& policy, at::ScalarType type) {
    const at::Tensor eye = at::eye(policy.size(1), policy.options().dtype(type));
    const at::Tensor column = policy.to(type).unsqueeze(1).unsqueeze(1);  // (B, 1, 1, N)
    return column + (1 - column) * eye;
}

at::ScalarType compute_type(const at::Tensor& logits) {
    return logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

struct PolicySoftmax : torch::autograd::Function<PolicySoftmax> {
    static Variable forward(AutogradContext* context, const Variable& logits, const Variable& policy) {
#ifdef DYNVIT_CUDA_KERNELS
        if (cuda::policy_softmax_supports(logits)) {
            auto [probabilities, row_max, row_sum] = cuda::policy_softmax_forward(logits, policy);
            context->save_for_backward({logits, policy, row_max, row_sum});
            return probabilities;
        }
#endif
        const at::ScalarType type = compute_type(logits);
        const at::Tensor row_max = logits.amax(-1, true).to(type);                                  // (B, h, N, 1)
        at::Tensor weights = logits.to(type).sub(row_max).exp_().mul_(visibility(policy, type));  // exp(P - max) G
        const at::Tensor row_sum = weights.sum(-1, true).add_(kPolicyEpsilon);
        const double floor = kPolicyEpsilon / static_cast<double>(logits.size(-1));
        context->save_for_backward({logits, policy, row_max, row_sum});
        return weights.add_(floor).div_(row_sum).to(logits.scalar_type());
    }

    // With E = exp(P - max), S the row's sum and u_i = sum_j dA_ij A_ij:
    //     d(E G)_ij = (dA_ij - u_i) / S_i,  dP = d(E G) E G,  dpolicy_j = sum_{heads, i != j} d(E G)_ij E_ij.
    // The row's maximum is subtracted, so its place also takes minus the sum of the row's dP (of the order of eps).
    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const variable_list saved = context->get_saved_variables();
        const at::Tensor &logits = saved[0], &policy = saved[1], &row_max = saved[2], &row_sum = saved[3];
        const bool wants_policy = context->needs_input_grad(1);
#ifdef DYNVIT_CUDA_KERNELS
        if (cuda::policy_softmax_supports(logits)) {
            auto [to_logits, to_policy] =
                cuda::policy_softmax_backward(gradients[0], logits, policy, row_max, row_sum, wants_policy);
            return {to_logits, to_policy};
        }
#endif
        const at::ScalarType type = compute_type(logits);
        const at::Tensor gain = visibility(policy, type);
        const at::Tensor unmasked = logits.to(type).sub(row_max).exp_();  // E
        const at::Tensor weights = unmasked * gain;                       // E G
        const double floor = kPolicyEpsilon / static_cast<double>(logits.size(-1));
        const at::Tensor to_probability = gradients[0].to(type);
        const at::Tensor mean = to_probability.mul(weights + floor).sum(-1, true).div_(row_sum);  // u
        const at::Tensor to_weights = to_probability.sub(mean).div_(row_sum);
        at::Tensor to_logits = to_weights * weights;
        const at::Tensor peak = logits.argmax(-1, true);
        to_logits.scatter_add_(-1, peak, to_logits.sum(-1, true).neg_());

        at::Tensor to_policy;
        if (wants_policy) {
            at::Tensor column = to_weights * unmasked;
            column.diagonal(0, -2, -1).zero_();
            to_policy = column.sum({1, 2}).to(policy.scalar_type());
        }
        return {to_logits.to(logits.scalar_type()), to_policy};
    }
};

}  // namespace

at::Tensor policy_softmax_plain(const at::Tensor& logits, const at::Tensor& policy) {
    const at::ScalarType type = compute_type(logits);
    const at::Tensor shifted = logits.to(type) - logits.to(type).amax(-1, true);
    const at::Tensor weights = shifted.exp() * visibility(policy, type);
    const double tokens = static_cast<double>(logits.size(-1));
    return (weights + kPolicyEpsilon / tokens) / (weights.sum(-1, true) + kPolicyEpsilon);
}

at::Tensor policy_softmax(const at::Tensor& logits, const at::Tensor& policy) {
    TORCH_CHECK(logits.dim() == 4 && logits.size(2) == logits.size(3), "logits must be (B, heads, N, N)");
    TORCH_CHECK(policy.dim() == 2 && policy.size(0) == logits.size(0) && policy.size(1) == logits.size(3),
                "policy must be (B, N)");
    return PolicySoftmax::apply(logits, policy);
}

at::Tensor masked_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const at::Tensor& policy, double scale) {
    const at::Tensor logits = at::matmul(query * scale, key.transpose(-2, -1));  // (B, h, N, N)
    const at::Tensor probabilities = policy_softmax(logits, policy);
    return at::matmul(probabilities, value.to(probabilities.scalar_type()));
}

}  // namespace dynvit
