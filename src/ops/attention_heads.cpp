#include "dynvit/ops/attention_heads.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace dynvit {
namespace {

constexpr float kTiny = std::numeric_limits<float>::min();  // where no token is left, the sums are 0, not 0 / 0

// (..., C) -> (..., h, d)
at::Tensor norm_of_heads(const at::Tensor& x, const HeadNorm& norm) {
    const std::int64_t head_dim = norm.weight.size(0);
    const at::Tensor heads = x.unflatten(-1, {x.size(-1) / head_dim, head_dim});
    const at::ScalarType type = x.scalar_type();
    return at::layer_norm(heads, {head_dim}, norm.weight.to(type), norm.bias.to(type), norm.epsilon);
}

}  // namespace

at::Tensor norm_queries_keys(const at::Tensor& qkv, const HeadNorm& q_norm, const HeadNorm& k_norm) {
    const std::vector<at::Tensor> parts = qkv.chunk(3, -1);
    return at::cat({norm_of_heads(parts[0], q_norm).flatten(-2), norm_of_heads(parts[1], k_norm).flatten(-2), parts[2]},
                   -1);
}

at::Tensor mean_normed_keys(const at::Tensor& keys, const HeadNorm& k_norm) {
    return norm_of_heads(keys, k_norm).mean(-2);
}

at::Tensor pooled_attention(const at::Tensor& query, const at::Tensor& kv, std::int64_t heads,
                            const at::Tensor& counts) {
    if (kv.size(1) == 0) return at::zeros({kv.size(0), query.size(1)}, kv.options());
    const std::int64_t head_dim = query.size(1) / heads;
    const at::Tensor q = query.view({1, heads, 1, head_dim}) / std::sqrt(static_cast<double>(head_dim));
    const at::Tensor parts = kv.view({kv.size(0), kv.size(1), 2, heads, head_dim}).permute({2, 0, 3, 1, 4});
    const at::Tensor logits = at::matmul(q.to(kv.scalar_type()), parts[0].transpose(-2, -1)).to(at::kFloat);
    at::Tensor weights = at::exp(logits - logits.amax(-1, /*keepdim=*/true));  // (B, h, 1, n)
    if (counts.defined()) weights = weights * counts.unsqueeze(1).unsqueeze(1);
    weights = weights / weights.sum(-1, /*keepdim=*/true).clamp_min(kTiny);
    return at::matmul(weights.to(kv.scalar_type()), parts[1]).flatten(1);  // (B, h, 1, d) -> (B, C)
}

at::Tensor packed_pooled_attention(const at::Tensor& query, const at::Tensor& kv, std::int64_t heads,
                                   const PackedLayout& layout, const at::Tensor& counts) {
    const std::int64_t head_dim = query.size(1) / heads, batch = layout.sequences();
    const at::Tensor parts = kv.view({kv.size(0), 2, heads, head_dim}).to(at::kFloat);
    const at::Tensor keys = parts.select(1, 0), values = parts.select(1, 1), sequence = layout.sequence_of_row();
    const at::Tensor q = query.view({1, heads, head_dim}) / std::sqrt(static_cast<double>(head_dim));
    const at::Tensor logits = (keys * q).sum(-1);  // (T, h)
    const at::Tensor greatest = at::zeros({batch, heads}, logits.options())
                                    .scatter_reduce(0, sequence.unsqueeze(1).expand_as(logits), logits, "amax",
                                                    /*include_self=*/false);
    at::Tensor weights = at::exp(logits - greatest.index_select(0, sequence));
    if (counts.defined()) weights = weights * counts.unsqueeze(1);
    const at::Tensor sums = at::zeros({batch, heads}, weights.options()).index_add(0, sequence, weights);
    const at::Tensor sum_of_values =
        at::zeros({batch, heads, head_dim}, weights.options()).index_add(0, sequence, values * weights.unsqueeze(-1));
    return (sum_of_values / sums.unsqueeze(-1).clamp_min(kTiny)).flatten(1).to(kv.scalar_type());
}

}  // namespace dynvit
