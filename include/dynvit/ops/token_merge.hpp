// Merging: a token that does not go on is averaged into one that does and resembles it.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit {

struct MergedTokens {
    at::Tensor x;      // (B, prefix + k, C)
    at::Tensor sizes;  // (B, k), float32: how many patches each patch token stands for
};

/// Merges each patch token that is not kept into the kept one with the most similar metric, where their cosine is above
/// the threshold, and removes it elsewhere. What comes out at a kept place is the mean of its tokens, weighted by their
/// sizes. The weights are float32 and the sums have one order, so that results repeat exactly. Gradients flow through
/// the mean to all tokens in it, and not into the choice of who merges with whom.
/// @param x (B, prefix + n, C): prefix tokens ([CLS], registers), which stay as they are, then patch tokens
/// @param sizes (B, n), float32: patches that each patch token stands for; undefined: one each
/// @param places (B, k), int64: the kept patch tokens, each in [0, n), none twice
/// @param metric (B, n, d): what is compared, a row for each patch token
/// @param threshold in [-1, 1]: 1 merges nothing, below -1 everything
MergedTokens merge_dropped(const at::Tensor& x, const at::Tensor& sizes, const at::Tensor& places,
                           const at::Tensor& metric, double threshold, std::int64_t prefix = 1);

/// A linear layer's weight and bias.
struct LayerWeights {
    at::Tensor weight, bias;
};

/// Returns the layer that gives the mean over the heads of the keys that a qkv layer gives, which is what ToMe compares
/// (Bolya et al., 2023). It costs the heads' share of what the keys cost.
/// @param weight (3 C, C); @param bias (3 C), or undefined
/// @return (d, C) and (d), the bias undefined where it is not given
LayerWeights mean_key_layer(const at::Tensor& weight, const at::Tensor& bias, std::int64_t heads);

}  // namespace dynvit
