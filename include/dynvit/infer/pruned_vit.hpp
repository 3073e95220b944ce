// Inference in which dropped tokens are really gone.
#pragma once

#include "dynvit/infer/selection_policy.hpp"

namespace dynvit {

struct PrunedOutput {
    at::Tensor logits;                   // (B, outputs), see ModelSettings
    std::vector<at::Tensor> kept;        // a stage: (B, k) int64, places on the original grid, as Tokens::positions
    std::vector<at::Tensor> slots = {};  // a stage: which token each of those before it has become part of, see Tokens
};

/// What the model's stages do, see reduce_tokens. @param policy who scores; null where the stages choose by themselves
/// @param tokens a count a stage; empty: nothing, the dense model
/// @return an operation that holds references to model and policy; empty for the dense model
StageOperation stage_operation(const InferenceModel& model, SelectionPolicy* policy, std::vector<std::int64_t> tokens);

/// Runs the model without gradients. At each stage the policy's `tokens[stage]` best patch tokens go on with [CLS]; the
/// others are removed, or become part of them, and are never computed again.
/// @param images (B, 3, H, W): uint8, or normalized numbers
/// @param policy, tokens as for stage_operation
PrunedOutput pruned_forward(const InferenceModel& model, const at::Tensor& images, SelectionPolicy* policy,
                            const std::vector<std::int64_t>& tokens);

/// The same from the embedding on, of one image alone and by the model's prediction modules: x of
/// InferenceModel::embed.
/// @param blocks what InferenceModel::one_image_blocks gave
PrunedOutput pruned_forward_embedded(const InferenceModel& model, const at::Tensor& x, OneImageBlocks& blocks,
                                     const std::vector<std::int64_t>& tokens);

/// What stands among kept tokens' places in the flattened grids for one that others were fused into, which has no
/// place.
inline constexpr std::int64_t kFused = -1;

/// A different number of tokens in each image.
struct PerImageOutput {
    at::Tensor logits;                              // (B, outputs)
    std::vector<std::vector<std::int64_t>> counts;  // a stage: patch tokens that each image keeps, (B), without the one
                                                    // that this stage fuses the others into
    std::vector<at::Tensor> kept;  // a stage: their places in the flattened grids (B, N), ascending, int64, and kFused
    std::vector<at::Tensor> keep_probabilities;  // a stage: pi_keep of those that it chose from, image after image
};

/// Runs the model without gradients on packed sequences. At each stage every patch token whose probability to be kept,
/// pi_keep, is above the stage's threshold goes on: many in a crowded picture, few in a plain one, none at worst.
/// @param images (B, 3, H, W): uint8, or normalized numbers
/// @param thresholds a probability a stage, in [0, 1]
PerImageOutput per_image_forward(const InferenceModel& model, const at::Tensor& images,
                                 const std::vector<double>& thresholds);

/// Runs the model without gradients with an operation at each stage, see run_blocks.
/// @param x of InferenceModel::embed @return what the stages give as positions in `kept`
PrunedOutput staged_forward_embedded(const InferenceModel& model, const at::Tensor& x, const StageOperation& operation);

/// Structural downsampling is the baseline that looks at no content: patch tokens are averaged two by two on their
/// grid. Returns the stage that does it, the one in the middle, counted from 0.
std::int64_t structural_stage(const ModelSettings& settings);
/// Returns how many patch tokens it leaves.
std::int64_t structural_tokens(const ModelSettings& settings);

}  // namespace dynvit
