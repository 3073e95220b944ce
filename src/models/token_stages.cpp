#include "dynvit/models/token_stages.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "dynvit/models/vit_forward.hpp"
#include "dynvit/ops/token_gather.hpp"
#include "dynvit/ops/token_merge.hpp"

namespace dynvit {

StageOperation select_tokens(std::int64_t prefix, TokenScores scores, std::vector<std::int64_t> counts) {
    return [prefix, scores = std::move(scores), counts = std::move(counts)](const StageInput& input) -> Tokens {
        at::Tensor score;
        {
            const at::NoGradGuard no_grad;
            score = scores(input);
        }
        const std::int64_t count = counts.at(static_cast<std::size_t>(input.stage));
        KeptTokens kept = keep_top_tokens(input.x, score, input.positions, count, prefix);
        return {std::move(kept.tokens), std::move(kept.positions)};
    };
}

StageOperation merge_tokens(std::int64_t prefix, TokenScores scores, TokenMetric metric,
                            std::vector<std::int64_t> counts, double threshold) {
    return [=, scores = std::move(scores), metric = std::move(metric),
            counts = std::move(counts)](const StageInput& input) -> Tokens {
        at::Tensor places, compared;
        {
            const at::NoGradGuard no_grad;
            places = top_places(scores(input).detach(), counts.at(static_cast<std::size_t>(input.stage)));
            compared = metric(input);
        }
        MergedTokens merged = merge_dropped(input.x, input.sizes, places, compared, threshold, prefix);
        return {std::move(merged.x), input.positions.gather(1, places), std::move(merged.sizes)};
    };
}

StageOperation reduce_tokens(const ModelSettings& settings, TokenScores scores, TokenMetric metric,
                             std::vector<std::int64_t> counts) {
    const std::int64_t prefix = settings.prefix_tokens();
    if (!settings.merges()) return select_tokens(prefix, std::move(scores), std::move(counts));
    return merge_tokens(prefix, std::move(scores), std::move(metric), std::move(counts), settings.merge_threshold);
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

PrunedTokens run_blocks(const ModelSettings& settings, const at::Tensor& x, const RunBlock& run_block,
                        const StageOperation& operation) {
    PrunedTokens output{x, {}};
    at::Tensor before, sizes;
    at::Tensor positions = at::arange(settings.patches(), x.options().dtype(at::kLong)).expand({x.size(0), -1});
    const std::int64_t prefix = settings.prefix_tokens();
    walk_blocks(
        settings, operation ? settings.stages() : 0,
        [&](std::int64_t stage, std::int64_t block) {
            Tokens tokens =
                operation({stage, block, output.tokens, output.tokens.slice(1, prefix), positions, before, sizes});
            output.tokens = std::move(tokens.x);
            sizes = std::move(tokens.sizes);
            if (sizes.defined()) output.sizes = at::constant_pad_nd(sizes, {prefix, 0}, 1);
            positions = std::move(tokens.positions);
            output.kept.push_back(positions);
        },
        [&](std::int64_t block) {
            before = output.tokens;
            output.tokens = run_block(block, output.tokens, output.sizes);
        });
    return output;
}

}  // namespace dynvit
