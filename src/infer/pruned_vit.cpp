#include "dynvit/infer/pruned_vit.hpp"

#include <ATen/ATen.h>

#include "dynvit/models/rotary_positions.hpp"
#include "dynvit/models/vit_forward.hpp"
#include "dynvit/ops/packed_merge.hpp"

namespace dynvit {

StageOperation stage_operation(const InferenceModel& model, SelectionPolicy* policy, std::vector<std::int64_t> tokens) {
    if (tokens.empty()) return {};
    StageChoices choices;
    if (policy) {
        choices.scores = [policy](const StageInput& input) { return policy->scores(input); };
        choices.weights = [policy](const at::Tensor& scores) { return policy->fusion_weights(scores); };
    }
    choices.metric = [&model](const StageInput& input) { return model.mean_keys(input.stage, input.keyed); };
    return reduce_tokens(model.settings(), std::move(choices), std::move(tokens));
}

PrunedOutput pruned_forward(const InferenceModel& model, const at::Tensor& images, SelectionPolicy* policy,
                            const std::vector<std::int64_t>& tokens) {
    const torch::NoGradGuard no_grad;
    return staged_forward_embedded(model, model.embed(images), stage_operation(model, policy, tokens));
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
    const std::int64_t last = model.settings().depth - 1;
    bool is_left = false;
    AttentionContext left;  // of the tokens before the last block
    const auto run_block = [&](std::int64_t block, BlockPiece piece, const at::Tensor& input,
                               const AttentionContext& context) {
        is_left = operation && block == last && piece == BlockPiece::kWhole;
        if (!is_left) return model.run_block(block, input, context, piece);
        left = context;
        return input;
    };
    PrunedTokens result = run_blocks(model.settings(), x, run_block, operation, model.rotary_table());
    const at::Tensor logits =
        is_left ? model.last_block_logits(result.tokens, left) : model.logits(result.tokens, result.sizes);
    return {logits, std::move(result.kept), std::move(result.slots)};
}

namespace {

// Places in the flattened grids, of names that are `step` apart from image to image; fused tokens' are from N on.
at::Tensor places_of(const at::Tensor& names, std::int64_t patches, std::int64_t step) {
    if (step == patches) return names;
    const at::Tensor image = names.div(step, "floor"), is_place = names - image * step < patches;
    return at::where(is_place, names - image * (step - patches), kFused);
}

}  // namespace

PerImageOutput per_image_forward(const InferenceModel& model, const at::Tensor& images,
                                 const std::vector<double>& thresholds) {
    const torch::NoGradGuard no_grad;
    const ModelSettings& settings = model.settings();
    TORCH_CHECK(std::ssize(thresholds) == settings.stages(), "one threshold a stage is needed");
    PerImageOutput output;
    const at::Tensor embedded = model.embed(images);  // (B, prefix + N, C)
    const std::int64_t batch = embedded.size(0), rows = embedded.size(1), prefix = settings.prefix_tokens();
    // Names ascend in each image: those of its patches, and one for each stage's fused token.
    const std::int64_t patches = rows - prefix, step = patches + (settings.fuses() ? settings.stages() : 0);
    const at::Tensor names = at::arange(batch * step, embedded.options().dtype(at::kLong)).view({batch, step});
    PackedTokens tokens{embedded.flatten(0, 1),
                        PackedLayout::uniform(batch, rows, embedded.device()),
                        names.slice(1, 0, patches).flatten(),
                        {}};
    AttentionContext context = model.context_of_all();
    bool uniform = true;  // as many tokens in each image
    at::Tensor keyed;     // what the attention before a stage in its block has read
    walk_blocks(
        settings, settings.stages(),
        [&](std::int64_t stage, std::int64_t) {
            PackedTokens kept = keep_above(tokens, model.keep_log_probability(stage, tokens.x, tokens.layout),
                                           thresholds[static_cast<std::size_t>(stage)], prefix);
            output.counts.push_back(kept.layout.lengths());
            for (std::int64_t& count : output.counts.back()) count -= prefix;
            output.kept.push_back(places_of(kept.positions, patches, step));
            output.keep_probabilities.push_back(kept.probabilities);
            if (settings.merges()) {
                const at::Tensor metric = model.mean_keys(stage, settings.stages_in_blocks() ? keyed : tokens.x);
                kept = merge_dropped(tokens, kept, metric, settings.merge_threshold, prefix);
            }
            if (settings.fuses()) kept = fuse_dropped(tokens, kept, {patches + stage, step}, prefix);
            tokens = std::move(kept);
            context = {.sizes = tokens.sizes};
            if (const at::Tensor& table = model.rotary_table(); table.defined()) {
                context.rotation = rotation_at(table, tokens.positions.remainder(step), tokens.layout, prefix);
            }
            uniform = false;
        },
        [&](std::int64_t block, BlockPiece piece) {
            const bool last = block + 1 == settings.depth && piece != BlockPiece::kAttention;
            if (piece == BlockPiece::kAttention) keyed = tokens.x;
            if (last && piece == BlockPiece::kWhole) {
                output.logits = uniform ? model.last_block_logits(tokens.x.view(embedded.sizes()), context)
                                        : model.last_block_logits(tokens.x, tokens.layout, context);
                return;
            }
            tokens.x = uniform ? model.run_block(block, tokens.x.view(embedded.sizes()), context, piece).flatten(0, 1)
                               : model.run_block(block, tokens.x, tokens.layout, context, piece);
            if (last) output.logits = model.logits(tokens.x, tokens.layout, tokens.sizes);
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
