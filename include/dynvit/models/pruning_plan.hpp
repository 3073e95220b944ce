// How many tokens a pruned model keeps, and who chooses them: one type for all that run, store or export a model.
#pragma once

#include <string>
#include <vector>

#include "dynvit/models/model_settings.hpp"

namespace dynvit {

/// The share of the patches that the first stage keeps where nobody says otherwise: the article's.
inline constexpr double kDefaultKeepRatio = 0.7;

/// The policies that a plan is made for where no other is named; infer/selection_policy.hpp knows all of them.
inline constexpr const char* kPredicted = "predicted";
inline constexpr const char* kPerImage = "per_image";
inline constexpr const char* kSimilarity = "similarity";

/// Of these the one that a model has where nobody names another: kPredicted, or kSimilarity where its stages choose
/// without prediction modules.
std::string own_policy(const ModelSettings& settings);

struct PruningPlan {
    std::string policy = kPredicted;        // who selects
    std::vector<std::int64_t> tokens = {};  // a count a stage: as many tokens in every image
    std::vector<double> thresholds = {};    // a probability a stage: an own number in each image

    /// Without numbers every token goes through every block, whatever the policy (but for "structural", which keeps a
    /// number of its own).
    bool dense() const { return tokens.empty() && thresholds.empty(); }
    bool operator==(const PruningPlan&) const = default;
};

/// Where stages stand if nobody says otherwise: at a quarter, half and three quarters of the blocks, as DynamicViT's;
/// fewer in a model of fewer than four blocks, none in one of one.
std::vector<std::int64_t> default_stages(std::int64_t depth);

/// A share of all patches a stage. @param given as many, or one number rho: then rho, rho^2, rho^3, ...
std::vector<double> stage_shares(const std::vector<double>& given, std::int64_t stages);

/// Stage s keeps floor(shares[s] N) of the N patches; shares of 1 alone are the dense model.
/// @param shares a number a stage, not growing
PruningPlan plan_for_shares(const ModelSettings& settings, const std::vector<double>& shares);

/// The stages keep rho, rho^2, ... of the patches; 1 is the dense model.
/// @param model what an Error calls the model
/// Throws Error for a ratio below 1 of a model without stages.
PruningPlan plan_for_ratio(const ModelSettings& settings, double keep_ratio, const std::string& model = "the model");

/// Every token above a threshold, in each image its own number. @param thresholds one, or one a stage
/// Throws Error for another number of them, and for a model without stages.
PruningPlan plan_for_thresholds(const ModelSettings& settings, const std::vector<double>& thresholds);

/// The largest keep ratio whose plan costs at most `gmacs` x 10^9 multiply-accumulates an image, see find_keep_ratio.
/// Throws Error where even a model that keeps no patch costs more, or has no stage that could save any.
double keep_ratio_for_gmacs(const ModelSettings& settings, double gmacs, bool predicts = true);

/// What is wrong with these counts, "found a count of 24 at stage 3, expected 25 to 49": more tokens than are there, or
/// fewer than the model's stages can leave; empty if nothing is.
std::string find_count_fault(const ModelSettings& settings, const std::vector<std::int64_t>& counts);

/// Throws Error where the plan has another number of counts or thresholds than the model has stages, counts of more
/// tokens than are there or of fewer than the model's stages can leave, or thresholds that are no probabilities.
/// @param name what an Error calls the plan; "": its policy
void check_plan(const PruningPlan& plan, const ModelSettings& settings, const std::string& name = "");

}  // namespace dynvit
