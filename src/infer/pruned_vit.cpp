#include "dynvit/infer/pruned_vit.hpp"

#include <ATen/ATen.h>

#include "dynvit/ops/token_gather.hpp"

namespace dynvit {

PrunedOutput pruned_forward(DynamicVitImpl& model, const at::Tensor& images, SelectionPolicy& policy,
                            const std::vector<std::int64_t>& tokens) {
    const torch::NoGradGuard no_grad;
    const ModelSettings& settings = model.settings();
    TORCH_CHECK(tokens.empty() || std::ssize(tokens) == settings.stages(), "one count a stage is needed");
    PrunedOutput output;
    at::Tensor x = model.embed(images);  // (B, n + 1, C)
    at::Tensor positions = at::arange(settings.patches(), x.options().dtype(at::kLong)).expand({x.size(0), -1});
    for (std::int64_t i = 0, stage = 0; i < settings.depth; ++i) {
        if (!tokens.empty() && stage < settings.stages() && settings.pruning_loc[stage] == i) {
            const at::Tensor patches = x.slice(1, 1);
            const at::Tensor places = top_places(policy.scores({stage, patches, positions}), tokens[stage]);
            positions = positions.gather(1, places);
            x = at::cat({x.slice(1, 0, 1), gather_tokens(patches, places)}, 1);
            output.kept.push_back(positions);
            ++stage;
        }
        x = model.block(i)(x);
    }
    output.logits = model.classify(model.normalize(x.select(1, 0)));
    return output;
}

}  // namespace dynvit
