#include "dynvit/infer/pruned_vit.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "dynvit/ops/packed_selection.hpp"

namespace dynvit {
namespace {

// Whether it is the block that a pruned model runs for [CLS] alone. The dense model has every token in every block, as
// the published ones do.
bool is_last(const InferenceModel& model, std::int64_t index) {
    return index + 1 == model.settings().depth;
}

}  // namespace

PrunedOutput pruned_forward(const InferenceModel& model, const at::Tensor& images, SelectionPolicy& policy,
                            const std::vector<std::int64_t>& tokens) {
    const torch::NoGradGuard no_grad;
    return pruned_forward_embedded(model, model.embed(images), policy, tokens);
}

PrunedOutput pruned_forward_embedded(const InferenceModel& model, const at::Tensor& x, SelectionPolicy& policy,
                                     const std::vector<std::int64_t>& tokens) {
    const torch::NoGradGuard no_grad;
    const bool last_for_cls = !tokens.empty();
    const auto run_block = [&](std::int64_t index, const at::Tensor& input) {
        return last_for_cls && is_last(model, index) ? input : model.run_block(index, input);
    };
    const auto scores = [&](const StageInput& input) { return policy.scores(input); };
    PrunedTokens result = remove_tokens(model.settings(), x, run_block, scores, tokens);
    const at::Tensor cls = last_for_cls ? model.run_last_block(result.tokens) : result.tokens.select(1, 0);
    return {model.classify(cls), std::move(result.kept)};
}

PrunedOutput pruned_forward_embedded(const InferenceModel& model, const at::Tensor& x, OneImageBlocks& blocks,
                                     const std::vector<std::int64_t>& tokens) {
    const torch::NoGradGuard no_grad;
    OneImageBlocks::Output result = blocks.run(x, tokens);
    return {model.classify(result.x.select(1, 0)), std::move(result.kept)};
}

PerImageOutput per_image_forward(const InferenceModel& model, const at::Tensor& images,
                                 const std::vector<double>& thresholds) {
    const torch::NoGradGuard no_grad;
    const ModelSettings& settings = model.settings();
    TORCH_CHECK(std::ssize(thresholds) == settings.stages(), "one threshold a stage is needed");
    PerImageOutput output;
    const at::Tensor embedded = model.embed(images);  // (B, N + 1, C)
    const std::int64_t batch = embedded.size(0), rows = embedded.size(1);
    PackedTokens tokens{embedded.flatten(0, 1),
                        PackedLayout::uniform(batch, rows, embedded.device()),
                        at::arange(batch * (rows - 1), embedded.options().dtype(at::kLong)),
                        {}};
    for (std::int64_t i = 0, stage = 0; i < settings.depth; ++i) {
        if (stage < settings.stages() && settings.pruning_loc[stage] == i) {
            tokens = keep_above(tokens, model.keep_log_probability(stage, tokens.x, tokens.layout), thresholds[stage]);
            output.counts.push_back(tokens.layout.lengths());
            for (std::int64_t& count : output.counts.back()) --count;  // [CLS]
            output.kept.push_back(tokens.positions);
            output.keep_probabilities.push_back(tokens.probabilities);
            ++stage;
        }
        if (is_last(model, i)) break;
        if (stage == 0) {  // as many tokens in each image
            tokens.x = model.run_block(i, tokens.x.view(embedded.sizes())).flatten(0, 1);
        } else {
            tokens.x = model.run_block(i, tokens.x, tokens.layout);
        }
    }
    output.logits = model.classify(model.run_last_block(tokens.x, tokens.layout));
    return output;
}

at::Tensor structural_forward(const InferenceModel& model, const at::Tensor& images, std::int64_t block) {
    const torch::NoGradGuard no_grad;
    return structural_forward_embedded(model, model.embed(images), block);
}

at::Tensor structural_forward_embedded(const InferenceModel& model, at::Tensor x, std::int64_t block) {
    const torch::NoGradGuard no_grad;
    const ModelSettings& settings = model.settings();
    for (std::int64_t i = 0; i < settings.depth; ++i) {
        if (i == block) {
            const at::Tensor grid = x.slice(1, 1).transpose(1, 2).reshape(
                {x.size(0), x.size(2), settings.grid_height(), settings.grid_width()});
            const at::Tensor pooled = at::avg_pool2d(grid, 2, 2, 0, /*ceil_mode=*/true, /*count_include_pad=*/false);
            x = at::cat({x.slice(1, 0, 1), pooled.flatten(2).transpose(1, 2)}, 1);
        }
        if (!is_last(model, i)) x = model.run_block(i, x);
    }
    return model.classify(model.run_last_block(x));
}

std::int64_t structural_block(const ModelSettings& settings) {
    return settings.pruning_loc[settings.pruning_loc.size() / 2];
}

std::int64_t structural_tokens(const ModelSettings& settings) {
    return ((settings.grid_height() + 1) / 2) * ((settings.grid_width() + 1) / 2);
}

}  // namespace dynvit
