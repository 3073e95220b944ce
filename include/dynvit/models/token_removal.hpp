// Blocks between which tokens are removed.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "dynvit/models/model_settings.hpp"

namespace dynvit {

/// What decides at a stage may look at.
struct StageInput {
    std::int64_t stage = 0;  // from 0
    std::int64_t block = 0;  // the block that the stage stands before, from 0
    at::Tensor x;            // (B, 1 + n, C): [CLS] and the patch tokens that are left
    at::Tensor tokens;       // (B, n, C): the same without [CLS], a view
    at::Tensor positions;    // (B, n), int64: their places on the original grid, ascending
    at::Tensor before;       // (B, n + 1, C): what went into the block before, [CLS] first; undefined at block 0
};

/// Scores the tokens that are left, (B, n); those with the highest stay.
using TokenScores = std::function<at::Tensor(const StageInput&)>;

/// What is left of the tokens.
struct PrunedTokens {
    at::Tensor tokens;             // (B, 1 + k, C): [CLS] and the survivors after the last block, before the final norm
    std::vector<at::Tensor> kept;  // a stage: (B, k) int64, places on the original grid, ascending
};

/// A block's output for its index, from 0, and its input, (B, n, C), which it must not change.
using RunBlock = std::function<at::Tensor(std::int64_t, const at::Tensor&)>;

/// Runs all blocks. At each stage the `counts[stage]` patch tokens with the highest scores go on with [CLS]; the others
/// are removed and never computed again. Gradients flow, but not into the selection.
/// @param x (B, N + 1, C), embedded
/// @param counts a count a stage, not growing; empty: dense
PrunedTokens remove_tokens(const ModelSettings& settings, at::Tensor x, const RunBlock& run_block,
                           const TokenScores& scores, const std::vector<std::int64_t>& counts);

}  // namespace dynvit
