// Merging: a token that does not go on is averaged into one that does. Functions named _plain are definitions, for any
// device and type. Those of the same name without it have loops for float32 and bfloat16 on the processor, and kernels
// on a GPU that the CUDA kernels were built for: of up to 4096 tokens an image, of metrics whose width is a multiple of
// 8 up to 128, and of tokens whose rows are a multiple of 16 bytes. None of these waits for the GPU.
#pragma once

#include <ATen/core/Tensor.h>

#include "dynvit/ops/bipartite.hpp"

namespace dynvit {

/// Which patch tokens go on, and which of the others are averaged into which of them.
struct TokenGroups {
    at::Tensor places;  // (B, k), int64: the patch tokens that go on, in their new order
    at::Tensor slots;   // (B, n), int64, each in [-1, k): into which of them a token goes, its own place's for one that
                        // goes on; -1: it is deleted
};

/// Lets each patch token that is not kept join the kept one with the most similar metric, where their cosine is above
/// the threshold; of equally similar ones the first.
/// @param places (B, k), int64, ascending: the kept patch tokens, each in [0, n)
/// @param metric (B, n, d): what is compared, a row for each patch token
/// @param threshold in [-1, 1]: 1 merges nothing, below -1 everything
TokenGroups join_nearest(const at::Tensor& places, const at::Tensor& metric, double threshold);
TokenGroups join_nearest_plain(const at::Tensor& places, const at::Tensor& metric, double threshold);

/// ToMe's matching (Bolya et al., 2023): of all tokens, prefix tokens counted too, those at even places each draw an
/// edge to the one at an odd place with the most similar metric (by cosine, of equally similar ones the first). Along
/// the n - k edges of the greatest similarity one token joins the other; of equally similar edges the first. Prefix
/// tokens draw no edge, and none is drawn to them. What is left comes in the order of the published code, which decides
/// who is at even places next time: those of even places (without prefix tokens in falling similarity), then the
/// others; as it was where nothing joins.
/// @param metric (B, n, d): a row for each patch token @param count k, at least least_bipartite(n, prefix)
TokenGroups match_bipartite(const at::Tensor& metric, std::int64_t count, std::int64_t prefix);
TokenGroups match_bipartite_plain(const at::Tensor& metric, std::int64_t count, std::int64_t prefix);

struct TokenBatch {
    at::Tensor x;           // (B, prefix + n, C): prefix tokens ([CLS], registers), then patch tokens
    at::Tensor sizes = {};  // (B, prefix + n), float32: how many patches each token stands for, 1 for prefix tokens;
                            // undefined: 1 each
    at::Tensor positions = {};  // (B, n), int64: a name for each patch token; undefined: they have none
};

/// Computes each group's mean, weighted by its tokens' sizes; prefix tokens stay as they are. Weights and sums are
/// float32, and the sums have one order, so that results repeat exactly; a token alone stays as it is. Gradients flow
/// to all tokens in a mean.
/// @return (B, prefix + k, C), with sizes, and with the names of the tokens that go on if `from` has names
TokenBatch average_groups(const TokenBatch& from, const TokenGroups& groups, std::int64_t prefix = 1);
TokenBatch average_groups_plain(const TokenBatch& from, const TokenGroups& groups, std::int64_t prefix = 1);

struct FusedTokens {
    at::Tensor x;          // (B, prefix + k + 1, C)
    at::Tensor positions;  // (B, k + 1), int64: the names of the patch tokens
    at::Tensor slots;      // (B, n), as in TokenGroups: k where a token was fused
};

/// Puts one token behind the kept ones: the sum of all others, each times its weight (EViT, Liang et al., 2022).
/// Gradients flow to all tokens.
/// @param from without sizes @param places (B, k), int64, ascending: the kept patch tokens; k < n
/// @param weights (B, n), float32, of each patch token; those of kept ones do not count
/// @param name of the token that the others are fused into
FusedTokens fuse_dropped(const TokenBatch& from, const at::Tensor& places, const at::Tensor& weights, std::int64_t name,
                         std::int64_t prefix = 1);
FusedTokens fuse_dropped_plain(const TokenBatch& from, const at::Tensor& places, const at::Tensor& weights,
                               std::int64_t name, std::int64_t prefix = 1);

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
