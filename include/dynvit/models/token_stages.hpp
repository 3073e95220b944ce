// Stages: what happens to the tokens where some of them need not go on.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "dynvit/models/vit_forward.hpp"

namespace dynvit {

/// The tokens behind a stage.
struct Tokens {
    at::Tensor x;           // (B, prefix + n, C): prefix tokens ([CLS], registers), then patch tokens
    at::Tensor positions;   // (B, n), int64: the patch tokens' places on the original grid, ascending where no tokens
                            // are matched; N, which is no place, for a token that others were fused into
    at::Tensor sizes = {};  // (B, prefix + n), float32: how many patches each token stands for, 1 for prefix tokens;
                            // undefined: 1 each
    at::Tensor slots = {};  // (B, tokens before the stage), int64: which patch token each has become part of, -1: none;
                            // undefined: one whose position is still there stands for itself, others for nothing
};

/// What attention reads of tokens beside their features.
struct AttentionContext {
    at::Tensor sizes = {};     // (B, n) or (T), float32: how many patches each token stands for; undefined: one each
    at::Tensor rotation = {};  // as rotation_at gives it; undefined: no token's queries and keys are turned
};

/// What a stage may look at.
struct StageInput {
    std::int64_t stage = 0;         // from 0
    std::int64_t block = 0;         // the block that the stage stands at, from 0
    at::Tensor x;                   // (B, prefix + n, C)
    at::Tensor tokens;              // (B, n, C): the same without the prefix tokens, a view
    at::Tensor positions;           // (B, n), int64, as in Tokens
    std::int64_t attended = 0;      // the block whose attention ran last, -1: none
    at::Tensor before;              // (B, prefix + n, C): what went into it; undefined where none ran
    AttentionContext context = {};  // of the tokens, and of those in `before`
    at::Tensor keyed = {};  // (B, prefix + n, C): the tokens whose keys in `block` tell how similar they are: those
                            // that this block's attention has read, or will
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

/// Gives what merging compares, (B, prefix + n, d): a row for each token; those of prefix tokens are not read.
using TokenMetric = std::function<at::Tensor(const StageInput&)>;

/// The operation that keeps the same tokens, and merges each of the others into the kept one that it resembles most,
/// see join_nearest. Gradients flow through the means.
StageOperation merge_tokens(std::int64_t prefix, TokenScores scores, TokenMetric metric,
                            std::vector<std::int64_t> counts, double threshold);

/// The operation that chooses nothing: the most similar tokens are merged until `counts[stage]` are left, see
/// match_bipartite. Gradients flow through the means.
StageOperation match_tokens(std::int64_t prefix, TokenMetric metric, std::vector<std::int64_t> counts);

/// Tells from the scores, (B, n), what each token weighs in one that it is fused into, (B, n), float32.
using FusionWeights = std::function<at::Tensor(const at::Tensor&)>;

/// The weights for scores that are log-probabilities: each token's share of the sum of all probabilities.
at::Tensor shares_of_log_probabilities(const at::Tensor& scores);

/// The operation that keeps the same tokens, and puts one behind them that all others are fused into, see fuse_dropped;
/// where every token is kept, none. At a later stage that one is a patch token as others. Gradients flow through the
/// sum, and through the weights where the scores have them.
StageOperation fuse_tokens(const ModelSettings& settings, TokenScores scores, FusionWeights weights,
                           std::vector<std::int64_t> counts);

/// What the operations above ask a model and a policy for.
struct StageChoices {
    TokenScores scores = {};
    TokenMetric metric = {};
    FusionWeights weights = shares_of_log_probabilities;
};

/// The operation that settings.reduction names.
StageOperation reduce_tokens(const ModelSettings& settings, StageChoices choices, std::vector<std::int64_t> counts);

/// The operation that averages patch tokens two by two on their grid, at an odd edge over those that are there; for a
/// model whose tokens are all left, at one stage alone. Each result's position is that of its upper left token.
/// @param stage where it does that; at the others it does nothing
StageOperation average_two_by_two(const ModelSettings& settings, std::int64_t stage);

/// What is left of the tokens.
struct PrunedTokens {
    at::Tensor tokens;                   // (B, prefix + k, C): after the last block, before the final norm
    std::vector<at::Tensor> kept;        // a stage: (B, k) int64, positions as in Tokens
    at::Tensor sizes = {};               // (B, prefix + k), as in Tokens
    std::vector<at::Tensor> slots = {};  // a stage: as in Tokens
};

/// Follows patches through a stage: which token each is part of behind it, (B, N), int64, -1 for none.
/// @param owners (B, N), the same before the stage; undefined: each patch is a token of its own
/// @param slots (B, n) of the stage, as in Tokens, not undefined
at::Tensor owners_behind(const at::Tensor& owners, const at::Tensor& slots);

/// For each patch of the grid the position of the token that it is part of behind each stage, -1 where it is part of
/// none: a stage, (B, N), int64. @param positions, stage_slots a stage, as kept and slots of PrunedTokens @param
/// patches N
std::vector<at::Tensor> sources(const std::vector<at::Tensor>& positions, const std::vector<at::Tensor>& stage_slots,
                                std::int64_t patches);

/// What a block, or a piece of it, makes of tokens, (B, n, C), which it must not change.
using RunBlock = std::function<at::Tensor(std::int64_t, BlockPiece, const at::Tensor&, const AttentionContext&)>;

/// Runs all blocks, and at each stage the operation.
/// @param x (B, prefix + N, C), embedded @param operation empty: dense
/// @param table the model's rotary_table(), where the tokens are
PrunedTokens run_blocks(const ModelSettings& settings, const at::Tensor& x, const RunBlock& run_block,
                        const StageOperation& operation, const at::Tensor& table = {});

}  // namespace dynvit
