#include "dynvit/ops/masked_attention.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "cpu/policy_softmax.hpp"
#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/flash_attention.hpp"
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

// Calls `work(b, head)` for every head of every image, several at once.
template <class Work>
void for_each_head(const at::Tensor& logits, const Work& work) {
    const std::int64_t heads = logits.size(1);
    at::parallel_for(0, logits.size(0) * heads, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t head = begin; head < end; ++head) work(head / heads, head);
    });
}

// The same softmax and its gradient by the fused loops of cpu/policy_softmax.hpp.
struct CpuPolicySoftmax : torch::autograd::Function<CpuPolicySoftmax> {
    static Variable forward(AutogradContext* context, const Variable& logits, const Variable& policy) {
        const at::Tensor softmax = at::softmax(logits, -1).contiguous(), visible = policy.contiguous();
        at::Tensor probabilities = at::empty_like(softmax),
                   row_sum = at::empty(softmax.sizes().slice(0, 3), softmax.options());
        const std::int64_t n = softmax.size(3);
        const float *p = softmax.const_data_ptr<float>(), *v = visible.const_data_ptr<float>();
        float *a = probabilities.mutable_data_ptr<float>(), *sums = row_sum.mutable_data_ptr<float>();
        for_each_head(softmax, [&](std::int64_t b, std::int64_t head) {
            cpu::policy_softmax_forward(p + head * n * n, v + b * n, n, a + head * n * n, sums + head * n);
        });
        context->save_for_backward({softmax, visible, row_sum});
        return probabilities;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const variable_list saved = context->get_saved_variables();
        const at::Tensor &softmax = saved[0], &visible = saved[1], &row_sum = saved[2];
        const bool wants_policy = context->needs_input_grad(1);
        const at::Tensor to_probabilities = gradients[0].contiguous();
        at::Tensor to_logits = at::empty_like(softmax), to_policy;  // the latter a head: (B, h, N)
        if (wants_policy) to_policy = at::zeros(row_sum.sizes(), row_sum.options());
        const std::int64_t n = softmax.size(3);
        const float *d = to_probabilities.const_data_ptr<float>(), *p = softmax.const_data_ptr<float>(),
                    *v = visible.const_data_ptr<float>(), *sums = row_sum.const_data_ptr<float>();
        float *out = to_logits.mutable_data_ptr<float>(),
              *columns = wants_policy ? to_policy.mutable_data_ptr<float>() : nullptr;
        for_each_head(softmax, [&](std::int64_t b, std::int64_t head) {
            cpu::policy_softmax_backward(d + head * n * n, p + head * n * n, v + b * n, sums + head * n, n,
                                         out + head * n * n, columns ? columns + head * n : nullptr);
        });
        return {to_logits, wants_policy ? to_policy.sum(1) : at::Tensor()};
    }
};

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
        const at::Tensor row_max = logits.amax(-1, true).to(type);                                // (B, h, N, 1)
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
    if (logits.is_cpu() && logits.scalar_type() == at::kFloat && policy.scalar_type() == at::kFloat) {
        return CpuPolicySoftmax::apply(logits, policy);
    }
    return PolicySoftmax::apply(logits, policy);
}

at::Tensor masked_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const at::Tensor& policy, double scale) {
    const at::Tensor logits = at::matmul(query * scale, key.transpose(-2, -1));  // (B, h, N, N)
    const at::Tensor probabilities = policy_softmax(logits, policy);
    return at::matmul(probabilities, value.to(probabilities.scalar_type()));
}

at::Tensor masked_self_attention(const at::Tensor& qkv, const at::Tensor& policy, std::int64_t heads) {
    TORCH_CHECK(qkv.dim() == 3 && qkv.size(2) % (3 * heads) == 0, "qkv must be (B, N, 3 x heads x head_dim)");
    const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), head_dim = qkv.size(2) / (3 * heads);
    TORCH_CHECK(!policy.defined() || (policy.dim() == 2 && policy.size(0) == batch && policy.size(1) == tokens),
                "policy must be (B, N)");
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::flash_attention_supports(qkv, heads)) return cuda::flash_attention(qkv, {.policy = policy}, heads);
#endif
    const at::Tensor parts = qkv.view({batch, tokens, 3, heads, head_dim}).permute({2, 0, 3, 1, 4});
    const at::Tensor q = parts[0], k = parts[1], v = parts[2];  // (B, h, N, d)
    const double scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
    const at::Tensor attended = policy.defined() ? masked_attention(q, k, v, policy, scale)
                                                 : at::scaled_dot_product_attention(q, k, v, {}, 0.0, false, scale);
    return attended.transpose(1, 2).reshape({batch, tokens, heads * head_dim});
}

}  // namespace dynvit
