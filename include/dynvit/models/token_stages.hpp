// Stages: what happens to the tokens between two blocks when some of them need not go on.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "dynvit/models/model_settings.hpp"

namespace dynvit {

/// The tokens between two blocks.
struct Tokens {
    at::Tensor x;           // (B, prefix + n, C): prefix tokens ([CLS], registers), then patch tokens
    at::Tensor positions;   // (B, n), int64: the patch tokens' places on the original grid, ascending
    at::Tensor sizes = {};  // (B, n), float32: how many patches each patch token stands for; undefined: one each
};

/// What a stage may look at.
struct StageInput {
    std::int64_t stage = 0;  // from 0
    std::int64_t block = 0;  // the block that the stage stands before, from 0
    at::Tensor x;            // (B, prefix + n, C)
    at::Tensor tokens;       // (B, n, C): the same without the prefix tokens, a view
    at::Tensor positions;    // (B, n), int64, as in Tokens
    at::Tensor before;       // (B, prefix + n, C): what went into the block before; undefined at block 0
    at::Tensor sizes = {};   // (B, n), as in Tokens
};

/// What a stage does: selecting tokens, averaging them, fusing those that were dropped. Prefix tokens come out as they
/// went in.
using StageOperation = std::function<Tokens(const StageInput&)>;

/// Scores the tokens that are left, (B, n); those with the highest stay.
using TokenScores = std::function<at::Tensor(const StageInput&)>;

/// The operation that keeps the `counts[stage]` patch tokens with the highest scores and removes the others. Gradients
/// flow through the tokens, but not into the selection.
/// @param prefix tokens that always stay @param counts a count a stage, not growing
StageOperation select_tokens(std::int64_t prefix, TokenScores scores, std::vector<std::int64_t> counts);

/// Gives what merging compares, (B, n, d): a row for each patch token.
using TokenMetric = std::function<at::Tensor(const StageInput&)>;

/// The operation that keeps the same tokens, and merges each of the others into the kept one that it resembles most,
/// see merge_dropped. Gradients flow through the means.
StageOperation merge_tokens(std::int64_t prefix, TokenScores scores, TokenMetric metric,
                            std::vector<std::int64_t> counts, double threshold);

/// The operation that settings.reduction names. @param metric for "merge"
StageOperation reduce_tokens(const ModelSettings& settings, TokenScores scores, TokenMetric metric,
                             std::vector<std::int64_t> counts);

/// The operation that averages patch tokens two by two on their grid, at an odd edge over those that are there; for a
/// model whose tokens are all left, at one stage alone. Each result's position is that of its upper left token.
/// @param stage where it does that; at the others it does nothing
StageOperation average_two_by_two(const ModelSettings& settings, std::int64_t stage);

/// What is left of the tokens.
struct PrunedTokens {
    at::Tensor tokens;             // (B, prefix + k, C): after the last block, before the final norm
    std::vector<at::Tensor> kept;  // a stage: (B, k) int64, positions as in Tokens
    at::Tensor sizes = {};         // (B, prefix + k), float32: as in Tokens, 1 for prefix tokens; undefined: 1 each
};

/// A block's output for its index, from 0, its input, (B, n, C), which it must not change, and the input's sizes,
/// (B, n), undefined where each token stands for itself alone.
using RunBlock = std::function<at::Tensor(std::int64_t, const at::Tensor&, const at::Tensor&)>;

/// Runs all blocks, and at each stage the operation.
/// @param x (B, prefix + N, C), embedded @param operation empty: dense
PrunedTokens run_blocks(const ModelSettings& settings, const at::Tensor& x, const RunBlock& run_block,
                        const StageOperation& operation);

}  // namespace dynvit
