#include "dynvit/models/pruning_plan.hpp"

#include <algorithm>

#include "dynvit/core/error.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/models/macs.hpp"
#include "dynvit/ops/bipartite.hpp"

namespace dynvit {

std::string own_policy(const ModelSettings& settings) {
    return settings.predicts() ? kPredicted : kSimilarity;
}

std::vector<std::int64_t> default_stages(std::int64_t depth) {
    std::vector<std::int64_t> blocks;
    for (const std::int64_t quarter : {1, 2, 3}) {
        const std::int64_t block = std::max<std::int64_t>(1, quarter * depth / 4);
        if (block < depth && (blocks.empty() || block > blocks.back())) blocks.push_back(block);
    }
    return blocks;
}

std::vector<double> stage_shares(const std::vector<double>& given, std::int64_t stages) {
    return std::ssize(given) == stages ? given : stage_ratios(given.front(), stages);
}

PruningPlan plan_for_shares(const ModelSettings& settings, const std::vector<double>& shares) {
    const std::string policy = own_policy(settings);
    if (std::ranges::all_of(shares, [](double share) { return share >= 1; })) return {.policy = policy};
    return {.policy = policy, .tokens = tokens_per_stage(shares, settings.patches())};
}

PruningPlan plan_for_ratio(const ModelSettings& settings, double keep_ratio, const std::string& model) {
    if (keep_ratio < 1 && settings.stages() == 0) {
        throw Error("keep-ratio", model, " has no prediction modules: expected 1, found ", keep_ratio);
    }
    return plan_for_shares(settings, stage_ratios(keep_ratio, settings.stages()));
}

PruningPlan plan_for_thresholds(const ModelSettings& settings, const std::vector<double>& thresholds) {
    const std::int64_t stages = settings.stages(), given = std::ssize(thresholds);
    if (stages == 0) throw Error("threshold", "the model has no prediction modules: expected none, found ", given);
    if (given != 1 && given != stages) {
        throw Error("threshold", "found ", given, " numbers, expected one or one a stage, ", stages);
    }
    PruningPlan plan{.policy = kPerImage, .thresholds = thresholds};
    plan.thresholds.resize(static_cast<std::size_t>(stages), thresholds.back());
    check_plan(plan, settings);
    return plan;
}

double keep_ratio_for_gmacs(const ModelSettings& settings, double gmacs, bool predicts) {
    const double ratio = settings.stages() > 0 ? find_keep_ratio(settings, gmacs, predicts) : -1.0;
    if (ratio > 0) return ratio;
    const std::vector<std::int64_t> none(settings.pruning_loc.size(), 0);
    throw Error("gmacs", "found ", gmacs, ", expected at least the ",
                fixed(1e-9 * static_cast<double>(count_macs(settings, none, predicts)), 3),
                settings.stages() > 0 ? " of a model that keeps no patch"
                                      : " of this model, which has no stage that could save any");
}

std::string find_count_fault(const ModelSettings& settings, const std::vector<std::int64_t>& counts) {
    std::int64_t tokens = settings.patches();  // before the stage
    for (std::size_t s = 0; s < counts.size(); ++s) {
        const std::int64_t least = settings.matches() ? least_bipartite(tokens, settings.prefix_tokens()) : 0;
        if (counts[s] < least || counts[s] > tokens) {
            return str("found a count of ", counts[s], " at stage ", s + 1, ", expected ", least, " to ", tokens);
        }
        tokens = settings.tokens_behind(tokens, counts[s]);
    }
    return {};
}

void check_plan(const PruningPlan& plan, const ModelSettings& settings, const std::string& name) {
    const std::string& called = name.empty() ? plan.policy : name;
    const auto check_size = [&](const char* what, std::int64_t found) {
        if (found == 0 || found == settings.stages()) return;
        throw Error("policy", called, ": found ", found, ' ', what, ", expected one a stage, ", settings.stages());
    };
    check_size("token counts", std::ssize(plan.tokens));
    check_size("thresholds", std::ssize(plan.thresholds));
    const std::string fault = find_count_fault(settings, plan.tokens);
    if (!fault.empty()) throw Error("policy", called, ": ", fault);
    for (const double threshold : plan.thresholds) {
        if (threshold >= 0 && threshold <= 1) continue;
        throw Error("policy", called, ": found a threshold of ", threshold, ", expected 0 to 1");
    }
}

}  // namespace dynvit
