#include "flash_attention.hpp"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "compute_capability.hpp"
#include "dynvit/core/error.hpp"
#include "element_type_of_tensor.hpp"
#include "flash_attention.cuh"

namespace dynvit::cuda {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

constexpr std::int64_t kHeadStep = 16, kNarrowHead = 64, kWideHead = 128;
constexpr int kSharedOfWideHeads = 144 << 10;  // bytes that the backward pass takes for heads wider than kNarrowHead
constexpr std::int64_t kMaxBatch = 65535;      // images are the z of the grid

std::int64_t widest_head(const at::Device& device) {
    int shared = 0;
    const int index = device.has_index() ? device.index() : c10::cuda::current_device();
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
    return shared >= kSharedOfWideHeads ? kWideHead : kNarrowHead;
}

bool takes_heads(const at::Device& device, std::int64_t head_dim) {
    if (head_dim % kHeadStep != 0 || head_dim > kWideHead) return false;
    return head_dim <= kNarrowHead || head_dim <= widest_head(device);
}

FlashShape shape_of(std::int64_t batch, std::int64_t tokens, std::int64_t channels, std::int64_t heads) {
    const auto head_dim = static_cast<int>(channels / heads);
    return {static_cast<int>(batch), static_cast<int>(heads), static_cast<int>(tokens), head_dim,
            1 / std::sqrt(static_cast<float>(head_dim))};
}

// Of q, k and v where they lie in the projection, (B, N, 3, heads, head_dim).
RowStrides strides_of(const FlashShape& shape) {
    const long long row = 3LL * shape.heads * shape.head_dim;
    return {shape.tokens * row, row, shape.head_dim};
}

const void* part(const at::Tensor& qkv, int which) {
    return static_cast<const char*>(qkv.const_data_ptr()) + which * qkv.size(-1) / 3 * qkv.element_size();
}
void* mutable_part(const at::Tensor& qkv, int which) {
    return static_cast<char*>(qkv.mutable_data_ptr()) + which * qkv.size(-1) / 3 * qkv.element_size();
}

const float* floats(const at::Tensor& tensor) {
    return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}
float* mutable_floats(const at::Tensor& tensor) {
    return tensor.defined() ? tensor.mutable_data_ptr<float>() : nullptr;
}

// As the kernels read them.
at::Tensor dense_floats(const at::Tensor& tensor) {
    return tensor.defined() ? tensor.to(at::kFloat).contiguous() : at::Tensor();
}

// Plain attention of a batch; more is for the caller to add.
FlashForward forward_of(const at::Tensor& qkv, const FlashShape& shape, const at::Tensor& out) {
    return {.element = element_of(qkv.scalar_type()),
            .shape = shape,
            .q = part(qkv, 0),
            .k = part(qkv, 1),
            .v = part(qkv, 2),
            .strides = strides_of(shape),
            .policy = nullptr,
            .sizes = nullptr,
            .offsets = nullptr,
            .out = out.mutable_data_ptr(),
            .lse = nullptr,
            .floor = nullptr};
}

// A policy or sizes that are undefined come as nullopt: apply asks every tensor for its type.
struct FlashAttention : torch::autograd::Function<FlashAttention> {
    static Variable forward(AutogradContext* context, const Variable& qkv, const std::optional<Variable>& policy,
                            const std::optional<Variable>& sizes, std::int64_t heads) {
        const KeyWeights weights{policy.value_or(Variable()), sizes.value_or(Variable())};
        auto [out, lse, floor] = flash_attention_forward(qkv, weights, heads, /*wants_lse=*/true);
        context->save_for_backward({qkv, weights.policy, weights.sizes, out, lse, floor});
        context->saved_data["heads"] = heads;
        return out;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const variable_list saved = context->get_saved_variables();
        const KeyWeights weights{saved[1], saved[2]};
        const bool wants_policy = weights.policy.defined() && context->needs_input_grad(1);
        const auto [to_qkv, to_policy] =
            flash_attention_backward(gradients[0], saved[0], weights, {saved[3], saved[4], saved[5]},
                                     context->saved_data["heads"].toInt(), wants_policy);
        return {to_qkv, wants_policy ? to_policy.to(weights.policy.scalar_type()) : at::Tensor(), at::Tensor(),
                at::Tensor()};
    }
};

}  // namespace

std::string why_no_flash_attention(const at::Device& device, std::int64_t head_dim) {
    if (takes_heads(device, head_dim)) return {};
    return str("found heads of ", head_dim, ", ours take multiples of ", kHeadStep, " up to ", widest_head(device));
}

bool flash_attention_supports(const at::Tensor& qkv, std::int64_t heads) {
    if (!kernels_run_on(qkv.device()) || !is_half(qkv.scalar_type()) || qkv.numel() == 0) return false;
    if (qkv.dim() == 3 && qkv.size(0) > kMaxBatch) return false;
    return takes_heads(qkv.device(), qkv.size(-1) / (3 * heads));
}

at::Tensor flash_attention(const at::Tensor& qkv, const KeyWeights& weights, std::int64_t heads) {
    const auto given = [](const at::Tensor& x) { return x.defined() ? std::optional(x) : std::nullopt; };
    const bool learns = at::GradMode::is_enabled() &&
                        (qkv.requires_grad() || (weights.policy.defined() && weights.policy.requires_grad()));
    return learns ? FlashAttention::apply(qkv, given(weights.policy), given(weights.sizes), heads)
                  : flash_attention_forward(qkv, weights, heads, /*wants_lse=*/false).out;
}

FlashOutput flash_attention_forward(const at::Tensor& qkv, const KeyWeights& weights, std::int64_t heads,
                                    bool wants_lse) {
    const c10::cuda::CUDAGuard device(qkv.device());
    const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), channels = qkv.size(2) / 3;
    const at::Tensor dense = qkv.contiguous(), policy = dense_floats(weights.policy),
                     sizes = dense_floats(weights.sizes);
    FlashOutput output{at::empty({batch, tokens, channels}, qkv.options()), {}, {}};
    const auto float_options = qkv.options().dtype(at::kFloat);
    if (wants_lse) output.lse = at::empty({batch, heads, tokens}, float_options);
    if (wants_lse && policy.defined()) output.floor = at::empty({batch, heads, tokens}, float_options);
    const FlashShape shape = shape_of(batch, tokens, channels, heads);
    FlashForward arguments = forward_of(dense, shape, output.out);
    arguments.policy = floats(policy);
    arguments.sizes = floats(sizes);
    arguments.lse = mutable_floats(output.lse);
    arguments.floor = mutable_floats(output.floor);
    C10_CUDA_CHECK(flash_forward(arguments, c10::cuda::getCurrentCUDAStream()));
    return output;
}

at::Tensor flash_attention_packed(const at::Tensor& qkv, const at::Tensor& offsets, std::int64_t longest,
                                  const at::Tensor& sizes, std::int64_t heads) {
    TORCH_CHECK(qkv.dim() == 2 && offsets.scalar_type() == at::kInt && offsets.device() == qkv.device(),
                "packed attention takes (T, 3 C) and int32 offsets on the same device");
    const c10::cuda::CUDAGuard device(qkv.device());
    const std::int64_t channels = qkv.size(1) / 3;
    const at::Tensor dense = qkv.contiguous(), begins = offsets.contiguous(), dense_sizes = dense_floats(sizes);
    const at::Tensor out = at::empty({qkv.size(0), channels}, qkv.options());
    const FlashShape shape = shape_of(offsets.size(0) - 1, longest, channels, heads);
    FlashForward arguments = forward_of(dense, shape, out);
    arguments.sizes = floats(dense_sizes);
    arguments.offsets = begins.const_data_ptr<int>();
    C10_CUDA_CHECK(flash_forward(arguments, c10::cuda::getCurrentCUDAStream()));
    return out;
}

FlashGradients flash_attention_backward(const at::Tensor& grad_out, const at::Tensor& qkv, const KeyWeights& weights,
                                        const FlashOutput& saved, std::int64_t heads, bool wants_policy) {
    const c10::cuda::CUDAGuard device(qkv.device());
    const at::Tensor dense = qkv.contiguous(), policy = dense_floats(weights.policy),
                     sizes = dense_floats(weights.sizes);
    const at::Tensor gradient = grad_out.to(qkv.scalar_type()).contiguous();
    const at::Tensor to_qkv = at::empty_like(dense), row_dots = at::empty_like(saved.lse);
    at::Tensor partial;  // of the policy's gradient, a head: (B, heads, N)
    if (wants_policy && policy.defined()) partial = at::empty_like(saved.lse);
    const FlashShape shape = shape_of(qkv.size(0), qkv.size(1), qkv.size(2) / 3, heads);
    const FlashBackward arguments{.element = element_of(dense.scalar_type()),
                                  .shape = shape,
                                  .q = part(dense, 0),
                                  .k = part(dense, 1),
                                  .v = part(dense, 2),
                                  .strides = strides_of(shape),
                                  .policy = floats(policy),
                                  .sizes = floats(sizes),
                                  .out = saved.out.const_data_ptr(),
                                  .lse = floats(saved.lse),
                                  .floor = floats(saved.floor),
                                  .grad_out = gradient.const_data_ptr(),
                                  .dq = mutable_part(to_qkv, 0),
                                  .dk = mutable_part(to_qkv, 1),
                                  .dv = mutable_part(to_qkv, 2),
                                  .grad_strides = strides_of(shape),
                                  .policy_partial = mutable_floats(partial),
                                  .row_dots = mutable_floats(row_dots)};
    C10_CUDA_CHECK(flash_backward(arguments, c10::cuda::getCurrentCUDAStream()));
    return {to_qkv, partial.defined() ? partial.sum(1) : at::Tensor()};
}

}  // namespace dynvit::cuda
