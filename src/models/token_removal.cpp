#include "dynvit/models/token_removal.hpp"

#include <ATen/ATen.h>

#include "dynvit/ops/token_gather.hpp"

namespace dynvit {

PrunedTokens remove_tokens(const ModelSettings& settings, at::Tensor x, const RunBlock& run_block,
                           const TokenScores& scores, const std::vector<std::int64_t>& counts) {
    TORCH_CHECK(counts.empty() || std::ssize(counts) == settings.stages(), "one count a stage is needed");
    PrunedTokens output;
    at::Tensor before;
    at::Tensor positions = at::arange(settings.patches(), x.options().dtype(at::kLong)).expand({x.size(0), -1});
    for (std::int64_t i = 0, stage = 0; i < settings.depth; ++i) {
        if (!counts.empty() && stage < settings.stages() && settings.pruning_loc[stage] == i) {
            at::Tensor score;
            {
                const at::NoGradGuard no_grad;
                score = scores({stage, i, x, x.slice(1, 1), positions, before});
            }
            const KeptTokens kept = keep_top_tokens(x, score, positions, counts[stage]);
            x = kept.tokens;
            positions = kept.positions;
            output.kept.push_back(positions);
            ++stage;
        }
        before = x;
        x = run_block(i, x);
    }
    output.tokens = x;
    return output;
}

}  // namespace dynvit
