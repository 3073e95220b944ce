#include "dynvit/models/token_stages.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "dynvit/models/rotary_positions.hpp"
#include "dynvit/ops/token_gather.hpp"
#include "dynvit/ops/token_merge.hpp"

namespace dynvit {
namespace {

std::int64_t count_at(const std::vector<std::int64_t>& counts, const StageInput& input) {
    return counts.at(static_cast<std::size_t>(input.stage));
}

at::Tensor without_gradients(const std::function<at::Tensor(const StageInput&)>& function, const StageInput& input) {
    const at::NoGradGuard no_grad;
    return function(input);
}

// The patch tokens' rows.
at::Tensor compared(const TokenMetric& metric, const StageInput& input, std::int64_t prefix) {
    return without_gradients(metric, input).slice(1, prefix);
}

Tokens average(const StageInput& input, const TokenGroups& groups, std::int64_t prefix) {
    TokenBatch merged = average_groups({input.x, input.context.sizes, input.positions}, groups, prefix);
    return {std::move(merged.x), std::move(merged.positions), std::move(merged.sizes), groups.slots};
}

}  // namespace

StageOperation select_tokens(std::int64_t prefix, TokenScores scores, std::vector<std::int64_t> counts) {
    return [prefix, scores = std::move(scores), counts = std::move(counts)](const StageInput& input) -> Tokens {
        const at::Tensor score = without_gradients(scores, input);
        KeptTokens kept = keep_top_tokens(input.x, score, input.positions, count_at(counts, input), prefix);
        return {std::move(kept.tokens), std::move(kept.positions)};
    };
}

StageOperation merge_tokens(std::int64_t prefix, TokenScores scores, TokenMetric metric,
                            std::vector<std::int64_t> counts, double threshold) {
    return [=, scores = std::move(scores), metric = std::move(metric),
            counts = std::move(counts)](const StageInput& input) -> Tokens {
        const at::Tensor score = without_gradients(scores, input).detach();
        const at::Tensor places = top_places(score, count_at(counts, input));
        return average(input, join_nearest(places, compared(metric, input, prefix), threshold), prefix);
    };
}

StageOperation match_tokens(std::int64_t prefix, TokenMetric metric, std::vector<std::int64_t> counts) {
    return [prefix, metric = std::move(metric), counts = std::move(counts)](const StageInput& input) -> Tokens {
        const at::Tensor rows = compared(metric, input, prefix);
        return average(input, match_bipartite(rows, count_at(counts, input), prefix), prefix);
    };
}

at::Tensor shares_of_log_probabilities(const at::Tensor& scores) {
    return at::softmax(scores, -1, at::kFloat);
}

StageOperation fuse_tokens(const ModelSettings& settings, TokenScores scores, FusionWeights weights,
                           std::vector<std::int64_t> counts) {
    const std::int64_t prefix = settings.prefix_tokens(), fused = settings.patches();
    return [=, scores = std::move(scores), weights = std::move(weights),
            counts = std::move(counts)](const StageInput& input) -> Tokens {
        const std::int64_t count = count_at(counts, input), tokens = input.tokens.size(1);
        const at::Tensor score = without_gradients(scores, input);
        if (count == tokens) {  // several of them may be fused ones, which positions don't tell apart
            return {
                input.x, input.positions, {}, at::arange(tokens, input.positions.options()).expand_as(input.positions)};
        }
        const at::Tensor places = top_places(score.detach(), count);
        FusedTokens left = fuse_dropped({input.x, {}, input.positions}, places, weights(score), fused, prefix);
        return {std::move(left.x), std::move(left.positions), {}, std::move(left.slots)};
    };
}

StageOperation reduce_tokens(const ModelSettings& settings, StageChoices choices, std::vector<std::int64_t> counts) {
    const std::int64_t prefix = settings.prefix_tokens();
    if (settings.matches()) return match_tokens(prefix, std::move(choices.metric), std::move(counts));
    if (settings.merges()) {
        return merge_tokens(prefix, std::move(choices.scores), std::move(choices.metric), std::move(counts),
                            settings.merge_threshold);
    }
    if (settings.fuses()) {
        return fuse_tokens(settings, std::move(choices.scores), std::move(choices.weights), std::move(counts));
    }
    return select_tokens(prefix, std::move(choices.scores), std::move(counts));
}

StageOperation average_two_by_two(const ModelSettings& settings, std::int64_t stage) {
    const std::int64_t height = settings.grid_height(), width = settings.grid_width(),
                       prefix = settings.prefix_tokens();
    return [=](const StageInput& input) -> Tokens {
        if (input.stage != stage) return {input.x, input.positions};
        const std::int64_t batch = input.x.size(0), channels = input.x.size(2);
        TORCH_CHECK(input.positions.size(1) == height * width, "every token of the grid must be left");
        const at::Tensor grid = input.tokens.transpose(1, 2).reshape({batch, channels, height, width});
        const at::Tensor pooled = at::avg_pool2d(grid, 2, 2, 0, /*ceil_mode=*/true, /*count_include_pad=*/false);
        const at::Tensor corners = input.positions.view({batch, height, width})
                                       .slice(1, 0, height, 2)
                                       .slice(2, 0, width, 2)
                                       .reshape({batch, -1});
        return {at::cat({input.x.slice(1, 0, prefix), pooled.flatten(2).transpose(1, 2)}, 1), corners};
    };
}

namespace {

// Takes rows' numbers at the given places, and -1 at the place -1. @param rows (B, n), places (B, N)
at::Tensor numbers_at(const at::Tensor& rows, const at::Tensor& places) {
    const at::Tensor with_none = at::constant_pad_nd(rows, {0, 1}, -1);  // a column behind the last one
    return with_none.gather(1, places.masked_fill(places < 0, rows.size(1)));
}

}  // namespace

at::Tensor owners_behind(const at::Tensor& owners, const at::Tensor& slots) {
    return owners.defined() ? numbers_at(slots, owners) : slots;
}

std::vector<at::Tensor> sources(const std::vector<at::Tensor>& positions, const std::vector<at::Tensor>& stage_slots,
                                std::int64_t patches) {
    std::vector<at::Tensor> found;
    if (positions.empty()) return found;
    const auto numbers = positions.front().options();
    const std::int64_t batch = positions.front().size(0);
    at::Tensor owners, before = at::arange(patches, numbers).expand({batch, -1});  // (B, n): the tokens' positions
    for (std::size_t s = 0; s < positions.size(); ++s) {
        const at::Tensor& kept = positions[s];
        at::Tensor slots = stage_slots[s];
        if (!slots.defined()) {
            const at::Tensor own = at::arange(kept.size(1), numbers).expand_as(kept);
            slots = at::full({batch, patches + 1}, -1, numbers).scatter(1, kept, own).gather(1, before);
        }
        owners = owners_behind(owners, slots);
        found.push_back(numbers_at(kept, owners));
        before = kept;
    }
    return found;
}

PrunedTokens run_blocks(const ModelSettings& settings, const at::Tensor& x, const RunBlock& run_block,
                        const StageOperation& operation, const at::Tensor& table) {
    PrunedTokens output{x, {}};
    at::Tensor before;
    AttentionContext context;
    at::Tensor positions = at::arange(settings.patches(), x.options().dtype(at::kLong)).expand({x.size(0), -1});
    const std::int64_t prefix = settings.prefix_tokens();
    context.rotation = rotation_at(table, positions.slice(0, 0, 1), prefix);
    walk_blocks(
        settings, operation ? settings.stages() : 0,
        [&](std::int64_t stage, std::int64_t block) {
            const at::Tensor patches = output.tokens.slice(1, prefix);
            const bool inside = settings.stages_in_blocks();  // behind this block's attention, or the one's before
            const at::Tensor& keyed = inside ? before : output.tokens;
            Tokens tokens = operation(
                {stage, block, output.tokens, patches, positions, inside ? block : block - 1, before, context, keyed});
            output.tokens = std::move(tokens.x);
            output.sizes = std::move(tokens.sizes);
            positions = std::move(tokens.positions);
            context = {output.sizes, rotation_at(table, positions, prefix)};
            output.kept.push_back(positions);
            output.slots.push_back(std::move(tokens.slots));
        },
        [&](std::int64_t block, BlockPiece piece) {
            if (piece != BlockPiece::kMlp) before = output.tokens;
            output.tokens = run_block(block, piece, output.tokens, context);
        });
    return output;
}

}  // namespace dynvit
