#include "dynvit/infer/pruned_vit.hpp"

#include <ATen/ATen.h>

namespace dynvit {

PrunedOutput pruned_forward(DynamicVitImpl& model, const at::Tensor& images, SelectionPolicy& policy,
                            const std::vector<std::int64_t>& tokens) {
    const torch::NoGradGuard no_grad;
    PrunedTokens result = model.forward_pruned(
        images, [&](const StageInput& input) { return policy.scores(input); }, tokens);
    return {model.classify(model.normalize(result.tokens.select(1, 0))), std::move(result.kept)};
}

}  // namespace dynvit
