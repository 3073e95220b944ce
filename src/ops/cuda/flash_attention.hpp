// The fused masked attention kernels for tensors. See ops/masked_attention.hpp for the formula.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace dynvit::cuda {

/// @return why the kernels do not take heads of `head_dim` channels on a GPU of compute capability 8.0 or newer: they
/// take multiples of 16 up to 128 (64 where a block has less shared memory than 144 KB); empty where they do
std::string why_no_flash_attention(const at::Device& device, std::int64_t head_dim);

/// @return whether the kernels take this projection, (..., 3 C): on a GPU of compute capability 8.0 or newer, float16
/// or bfloat16, C / heads a size of heads that they take, not empty.
bool flash_attention_supports(const at::Tensor& qkv, std::int64_t heads);

/// Numbers of the keys, (B, N), that change how much each weighs: one of the two, or none for plain attention.
struct KeyWeights {
    at::Tensor policy = {};  // of masked_self_attention() of ops/masked_attention.hpp
    at::Tensor sizes = {};   // of sized_self_attention() of ops/self_attention.hpp
};

/// Computes masked_self_attention() or sized_self_attention(), for what flash_attention_supports(), with gradients to
/// qkv and to the policy where they are asked for.
/// @param qkv (B, N, 3 C): q, k, v, each heads x head_dim; @return (B, N, C)
at::Tensor flash_attention(const at::Tensor& qkv, const KeyWeights& weights, std::int64_t heads);

struct FlashOutput {
    at::Tensor out;    // (B, N, C)
    at::Tensor lse;    // (B, heads, N) float32: log of the rows' sums; undefined unless wanted
    at::Tensor floor;  // (B, heads, N) float32: what eps adds to every probability of a row; undefined without a policy
};

/// Computes flash_attention() without gradients.
/// @param wants_lse whether flash_attention_backward will follow, which needs `lse` and `floor`
FlashOutput flash_attention_forward(const at::Tensor& qkv, const KeyWeights& weights, std::int64_t heads,
                                    bool wants_lse);

/// Computes attention within each of B sequences that lie one after another.
/// @param qkv (T, 3 C); @param offsets (B + 1) int32 on the same device: sequence b is rows offsets[b] to offsets[b +
/// 1]
/// @param longest tokens of the longest sequence; @param sizes (T), of sized_self_attention(); undefined: plain
/// @return (T, C)
at::Tensor flash_attention_packed(const at::Tensor& qkv, const at::Tensor& offsets, std::int64_t longest,
                                  const at::Tensor& sizes, std::int64_t heads);

struct FlashGradients {
    at::Tensor qkv;     // (B, N, 3 C)
    at::Tensor policy;  // (B, N) float32; undefined unless wanted
};

/// Computes the gradients of flash_attention_forward().
/// @param grad_out (B, N, C): the gradient of its `out`; qkv, weights, heads: what it was given; saved: what it
/// returned, with `lse`
FlashGradients flash_attention_backward(const at::Tensor& grad_out, const at::Tensor& qkv, const KeyWeights& weights,
                                        const FlashOutput& saved, std::int64_t heads, bool wants_policy);

}  // namespace dynvit::cuda
