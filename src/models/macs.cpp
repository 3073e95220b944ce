#include "dynvit/models/macs.hpp"

#include <c10/util/Exception.h>

#include <numeric>
#include <utility>

#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/models/vit_forward.hpp"

namespace dynvit {
namespace {

// Adds up what the model's products cost. A value is the number of its tokens.
struct Costs {
    std::int64_t macs = 0;

    std::int64_t linear(std::int64_t tokens, const LinearPart& part) {
        macs += tokens * part.macs();
        return tokens;
    }
    std::int64_t attention(std::int64_t tokens, const AttentionPart& part) {  // Q K^T and A V
        macs += 2 * tokens * tokens * part.proj.inputs;
        return tokens;
    }
    void add_linear(std::int64_t, std::int64_t tokens, const LinearPart& part) { linear(tokens, part); }
    void add_mlp(std::int64_t, std::int64_t tokens, const MlpPart& part) {
        linear(tokens, part.fc1);
        linear(tokens, part.fc2);
    }
    // What a stage does with tokens that do not go on, beside choosing them.
    void reduce(const ModelSettings& s, std::int64_t tokens, std::int64_t kept) {
        const std::int64_t head_dim = s.head_dim(), dropped = tokens - kept;
        const std::int64_t key_width = s.qk_norm ? s.embed_dim : head_dim;  // all keys, or their mean
        if (s.averages()) macs += (s.prefix_tokens() + tokens) * s.embed_dim * key_width;
        if (s.matches()) macs += tokens / 2 * (tokens - tokens / 2) * head_dim;  // cosines of both halves
        if (s.merges()) macs += dropped * kept * head_dim;                       // with the kept ones
        if (!s.deletes()) macs += dropped * s.embed_dim;                         // means, or the fused token
    }
    std::int64_t norm(std::int64_t tokens, const NormPart&) const { return tokens; }
    std::int64_t norm_heads(std::int64_t tokens, const AttentionPart&) const { return tokens; }
    std::int64_t rotate(std::int64_t tokens, const AttentionPart&) const { return tokens; }
    std::int64_t norm_rows(std::int64_t tokens, const NormPart&) const { return tokens; }
    std::int64_t activate(std::int64_t tokens, Activation) const { return tokens; }
    std::int64_t gelu(std::int64_t tokens) const { return tokens; }
    std::int64_t share_mean(std::int64_t tokens) const { return tokens; }
    std::int64_t log_keep(std::int64_t tokens) const { return tokens; }
    std::int64_t prefix_token(std::int64_t, std::int64_t) const { return 1; }
    std::int64_t patch_mean(std::int64_t) const { return 1; }
    std::int64_t beside(std::int64_t, std::int64_t) const { return 1; }
    std::int64_t mean_of(std::int64_t, std::int64_t) const { return 1; }
    std::int64_t sum(std::int64_t tokens, std::int64_t) const { return tokens; }
    std::int64_t latent(const std::string&) const { return 1; }
    std::int64_t pool(std::int64_t, std::int64_t tokens, const PoolPart& part) {
        macs += 2 * tokens * part.proj.inputs;
        return 1;
    }
};

}  // namespace

std::vector<std::int64_t> count_macs_per_stage(const ModelSettings& s, const std::vector<std::int64_t>& kept,
                                               bool predicts) {
    TORCH_CHECK(kept.empty() || static_cast<std::int64_t>(kept.size()) == s.stages(), "one count a stage is needed");
    const VitParts parts = vit_parts(s);
    std::vector<std::int64_t> macs;
    Costs costs;
    std::int64_t patches = costs.linear(s.patches(), parts.stem.patches);
    walk_blocks(
        s, s.stages(),
        [&](std::int64_t stage, std::int64_t) {
            macs.push_back(std::exchange(costs.macs, 0));
            if (kept.empty()) return;
            if (predicts && s.predicts()) predict(costs, parts.predictors[static_cast<std::size_t>(stage)], patches);
            const std::int64_t left = kept[static_cast<std::size_t>(stage)];
            costs.reduce(s, patches, left);
            patches = s.tokens_behind(patches, left);
        },
        [&](std::int64_t block, BlockPiece piece) {
            std::int64_t tokens = s.prefix_tokens() + patches;
            run_block(costs, parts.blocks[static_cast<std::size_t>(block)], tokens, piece);
        });
    std::int64_t tokens = s.prefix_tokens() + patches;
    classify(costs, s, parts, tokens);
    macs.push_back(costs.macs);
    return macs;
}

std::int64_t count_macs(const ModelSettings& settings, const std::vector<std::int64_t>& kept, bool predicts) {
    const std::vector<std::int64_t> parts = count_macs_per_stage(settings, kept, predicts);
    return std::accumulate(parts.begin(), parts.end(), std::int64_t{0});
}

double find_keep_ratio(const ModelSettings& settings, double gmacs, bool predicts) {
    const auto fits = [&](std::int64_t ten_thousandths) {
        const auto ratios = stage_ratios(static_cast<double>(ten_thousandths) / 1e4, settings.stages());
        const std::vector<std::int64_t> tokens = tokens_per_stage(ratios, settings.patches());
        return static_cast<double>(count_macs(settings, tokens, predicts)) <= gmacs * 1e9;
    };
    if (!fits(1)) return -1.0;
    std::int64_t low = 1, high = 10001;  // the costs do not fall as the ratio grows
    while (high - low > 1) (fits((low + high) / 2) ? low : high) = (low + high) / 2;
    return static_cast<double>(low) / 1e4;
}

std::int64_t count_parameters(const ModelSettings& settings) {
    const VitParts parts = vit_parts(settings);
    std::int64_t count = 0;
    const auto add = [&](const std::vector<ParameterPart>& list) {
        for (const ParameterPart& part : list) {
            count += std::accumulate(part.shape.begin(), part.shape.end(), std::int64_t{1}, std::multiplies<>());
        }
    };
    add(backbone_parameters(parts));
    for (const PredictionPart& predictor : parts.predictors) add(prediction_parameters(predictor));
    return count;
}

}  // namespace dynvit
