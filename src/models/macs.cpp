#include "dynvit/models/macs.hpp"

#include <c10/util/Exception.h>

#include <numeric>

#include "dynvit/models/keep_ratio.hpp"

namespace dynvit {

std::vector<std::int64_t> count_macs_per_stage(const ModelSettings& s, const std::vector<std::int64_t>& kept,
                                               bool predicts) {
    TORCH_CHECK(kept.empty() || static_cast<std::int64_t>(kept.size()) == s.stages(), "one count a stage is needed");
    const std::int64_t c = s.embed_dim;
    std::int64_t patches = s.patches();
    std::vector<std::int64_t> macs = {patches * c * 3 * s.patch_size * s.patch_size};
    for (std::int64_t i = 0, stage = 0; i < s.depth; ++i) {
        if (stage < s.stages() && s.pruning_loc[stage] == i) {
            macs.push_back(0);
            if (!kept.empty()) {
                if (predicts) macs.back() += patches * (c * c + c * (c / 2) + (c / 2) * (c / 4) + (c / 4) * 2);
                patches = kept[stage];
            }
            ++stage;
        }
        const std::int64_t tokens = patches + 1;
        macs.back() += tokens * c * (3 * c + c + 2 * s.hidden_dim());  // qkv, proj, the MLP's two layers
        macs.back() += 2 * tokens * tokens * c;                        // Q K^T and A V
    }
    macs.back() += c * s.num_classes;
    return macs;
}

std::int64_t count_macs(const ModelSettings& settings, const std::vector<std::int64_t>& kept, bool predicts) {
    const std::vector<std::int64_t> parts = count_macs_per_stage(settings, kept, predicts);
    return std::accumulate(parts.begin(), parts.end(), std::int64_t{0});
}

double find_keep_ratio(const ModelSettings& settings, double gmacs) {
    const auto fits = [&](std::int64_t ten_thousandths) {
        const auto ratios = stage_ratios(static_cast<double>(ten_thousandths) / 1e4, settings.stages());
        return static_cast<double>(count_macs(settings, tokens_per_stage(ratios, settings.patches()))) <= gmacs * 1e9;
    };
    if (!fits(1)) return -1.0;
    std::int64_t low = 1, high = 10001;  // the costs do not fall as the ratio grows
    while (high - low > 1) (fits((low + high) / 2) ? low : high) = (low + high) / 2;
    return static_cast<double>(low) / 1e4;
}

std::int64_t count_parameters(const ModelSettings& s) {
    const std::int64_t c = s.embed_dim, hidden = s.hidden_dim();
    const auto linear = [](std::int64_t in, std::int64_t out, bool bias = true) { return in * out + (bias ? out : 0); };
    const std::int64_t block =
        4 * c + linear(c, 3 * c, s.qkv_bias) + linear(c, c) + linear(c, hidden) + linear(hidden, c);
    const std::int64_t predictor = 2 * c + linear(c, c) + linear(c, c / 2) + linear(c / 2, c / 4) + linear(c / 4, 2);
    return c + (1 + s.patches()) * c + linear(3 * s.patch_size * s.patch_size, c) + s.depth * block + 2 * c +
           linear(c, s.num_classes) + s.stages() * predictor;
}

}  // namespace dynvit
