// Inference in which dropped tokens are really gone.
#pragma once

#include "dynvit/infer/selection_policy.hpp"

namespace dynvit {

struct PrunedOutput {
    at::Tensor logits;             // (B, classes)
    std::vector<at::Tensor> kept;  // a stage: (B, k) int64, places on the original grid, ascending
};

/// Runs the model without gradients. At each stage the policy's `tokens[stage]` best patch tokens go on with [CLS]; the
/// others are removed and never computed again.
/// @param images (B, 3, H, W), normalized
/// @param tokens a count a stage, not growing; empty: dense
PrunedOutput pruned_forward(DynamicVitImpl& model, const at::Tensor& images, SelectionPolicy& policy,
                            const std::vector<std::int64_t>& tokens);

}  // namespace dynvit
