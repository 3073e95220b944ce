#include "dynvit/ops/token_merge.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "dynvit/ops/token_gather.hpp"

namespace dynvit {

MergedTokens merge_dropped(const at::Tensor& x, const at::Tensor& sizes, const at::Tensor& places,
                           const at::Tensor& metric, double threshold, std::int64_t prefix) {
    const at::Tensor patches = x.slice(1, prefix);
    const std::int64_t batch = patches.size(0), tokens = patches.size(1), count = places.size(1);
    TORCH_CHECK(metric.dim() == 3 && metric.size(0) == batch && metric.size(1) == tokens,
                "metric must have a row for each of ", tokens, " patch tokens, found ", metric.sizes());
    const at::Tensor counted = sizes.defined() ? sizes : at::ones({batch, tokens}, x.options().dtype(at::kFloat));
    if (count == 0) return {x.slice(1, 0, prefix), counted.slice(1, 0, 0)};
    at::Tensor shares;  // (B, k, n), float32: what each token has in the mean of each kept one; rows sum to 1
    at::Tensor merged_sizes;
    {
        const at::NoGradGuard no_grad;
        const at::Tensor rows = metric.to(at::kFloat);
        const at::Tensor unit = rows / at::linalg_vector_norm(rows, 2, at::IntArrayRef{-1}, true).clamp_min(1e-12);
        const at::Tensor cosines = at::matmul(gather_tokens(unit, places), unit.transpose(1, 2));  // (B, k, n)
        const auto [nearest, slot] = cosines.max(1);                                               // (B, n) each
        const at::Tensor slots = at::arange(count, places.options()).view({1, count, 1});
        const at::Tensor own = places.unsqueeze(2) == at::arange(tokens, places.options());  // (B, k, n)
        const at::Tensor joins = (slot.unsqueeze(1) == slots)
                                     .logical_and((nearest > threshold).unsqueeze(1))
                                     .logical_and(own.any(1, /*keepdim=*/true).logical_not());
        const at::Tensor weights = own.logical_or(joins).to(at::kFloat) * counted.unsqueeze(1);
        merged_sizes = weights.sum(2);
        shares = weights / merged_sizes.unsqueeze(2);
    }
    const at::Tensor means = at::matmul(shares, patches.to(at::kFloat)).to(x.scalar_type());
    return {at::cat({x.slice(1, 0, prefix), means}, 1), merged_sizes};
}

LayerWeights mean_key_layer(const at::Tensor& weight, const at::Tensor& bias, std::int64_t heads) {
    const std::int64_t inputs = weight.size(1), head_dim = weight.size(0) / (3 * heads);
    return {weight.view({3, heads, head_dim, inputs})[1].mean(0),
            bias.defined() ? bias.view({3, heads, head_dim})[1].mean(0) : at::Tensor()};
}

}  // namespace dynvit
