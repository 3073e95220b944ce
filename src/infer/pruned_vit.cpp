#include "dynvit/infer/pruned_vit.hpp"

#include <ATen/ATen.h>

#include "dynvit/models/vit_forward.hpp"
#include "dynvit/ops/packed_selection.hpp"

namespace dynvit {

PrunedOutput pruned_forward(const InferenceModel& model, const at::Tensor& images, SelectionPolicy& policy,
                            const std::vector<std::int64_t>& tokens) {
    const torch::NoGradGuard no_grad;
    return pruned_forward_embedded(model, model.embed(images), policy, tokens);
}

PrunedOutput pruned_forward_embedded(const InferenceModel& model, const at::Tensor& x, SelectionPolicy& policy,
                                     const std::vector<std::int64_t>& tokens) {
    if (tokens.empty()) return staged_forward_embedded(model, x, {});
    const auto scores = [&](const StageInput& input) { return policy.scores(input); };
    const auto metric = [&](const StageInput& input) { return model.mean_keys(input.stage, input.tokens); };
    return staged_forward_embedded(model, x, reduce_tokens(model.settings(), scores, metric, tokens));
}

PrunedOutput pruned_forward_embedded(const InferenceModel& model, const at::Tensor& x, OneImageBlocks& blocks,
                                     const std::vector<std::int64_t>& tokens) {
    const torch::NoGradGuard no_grad;
    OneImageBlocks::Output result = blocks.run(x, tokens);
    return {model.logits(result.x), std::move(result.kept)};
}

PrunedOutput staged_forward_embedded(const InferenceModel& model, const at::Tensor& x,
                                     const StageOperation& operation) {
    const torch::NoGradGuard no_grad;
    // A pruned model's last block runs for what the head reads alone. The dense model has every token in every block,
    // as the published ones do.
    const std::int64_t whole_blocks = model.settings().depth - (operation ? 1 : 0);
    const auto run_block = [&](std::int64_t block, const at::Tensor& input, const at::Tensor& sizes) {
        return block < whole_blocks ? model.run_block(block, input, sizes) : input;
    };
    PrunedTokens result = run_blocks(model.settings(), x, run_block, operation);
    const at::Tensor logits =
        operation ? model.last_block_logits(result.tokens, result.sizes) : model.logits(result.tokens);
    return {logits, std::move(result.kept)};
}

PerImageOutput per_image_forward(const InferenceModel& model, const at::Tensor& images,
                                 const std::vector<double>& thresholds) {
    const torch::NoGradGuard no_grad;
    const ModelSettings& settings = model.settings();
    TORCH_CHECK(std::ssize(thresholds) == settings.stages(), "one threshold a stage is needed");
    PerImageOutput output;
    const at::Tensor embedded = model.embed(images);  // (B, prefix + N, C)
    const std::int64_t batch = embedded.size(0), rows = embedded.size(1), prefix = settings.prefix_tokens();
    PackedTokens tokens{embedded.flatten(0, 1),
                        PackedLayout::uniform(batch, rows, embedded.device()),
                        at::arange(batch * (rows - prefix), embedded.options().dtype(at::kLong)),
                        {}};
    bool uniform = true;  // as many tokens in each image
    walk_blocks(
        settings, settings.stages(),
        [&](std::int64_t stage, std::int64_t) {
            tokens = keep_above(tokens, model.keep_log_probability(stage, tokens.x, tokens.layout),
                                thresholds[static_cast<std::size_t>(stage)], prefix);
            uniform = false;
            output.counts.push_back(tokens.layout.lengths());
            for (std::int64_t& count : output.counts.back()) count -= prefix;
            output.kept.push_back(tokens.positions);
            output.keep_probabilities.push_back(tokens.probabilities);
        },
        [&](std::int64_t block) {
            if (block + 1 == settings.depth) {
                output.logits = model.last_block_logits(tokens.x, tokens.layout);
            } else if (uniform) {
                tokens.x = model.run_block(block, tokens.x.view(embedded.sizes())).flatten(0, 1);
            } else {
                tokens.x = model.run_block(block, tokens.x, tokens.layout);
            }
        });
    return output;
}

std::int64_t structural_stage(const ModelSettings& settings) {
    return settings.stages() / 2;
}

std::int64_t structural_tokens(const ModelSettings& settings) {
    return ((settings.grid_height() + 1) / 2) * ((settings.grid_width() + 1) / 2);
}

}  // namespace dynvit
