// Who decides which tokens stay: the prediction modules, or a baseline to compare them with.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dynvit/infer/inference_model.hpp"
#include "dynvit/models/pruning_plan.hpp"

namespace dynvit {

/// From how many pictures a policy learns where nobody says otherwise.
inline constexpr std::int64_t kCalibrationPictures = 128;

/// Scores the tokens that are left; those with the highest stay.
class SelectionPolicy {
  public:
    virtual ~SelectionPolicy() = default;
    virtual at::Tensor scores(const StageInput& input) = 0;  // (B, n)
    /// What tokens of these scores weigh in one that they are fused into, see FusionWeights. Of scores that are no
    /// probabilities or the like: their shares of the sum.
    virtual at::Tensor fusion_weights(const at::Tensor& scores) const;
};

/// What a policy may need beside the model.
struct PolicyInputs {
    at::Tensor pictures = {};  // (M, 3, H, W), uint8: what it learns from, without their labels; may be undefined
    std::uint64_t seed = 0;    // of what it draws
};

/// How tokens are chosen.
enum class Selects {
    kBest,     // as many as the plan counts, those with the highest scores
    kAbove,    // those whose pi_keep is above the plan's threshold
    kMatched,  // none: as many as are too many join those that they resemble most
    kAveraged  // none: they are averaged two by two on their grid in the middle of the network
};

/// All that is known of a policy; its only place is its line in the table of selection_policy.cpp.
struct PolicyEntry {
    const char* name;
    const char* description;  // a line for --help
    Selects selects = Selects::kBest;
    bool predicts = false;         // runs the prediction modules, which cost something
    bool is_prediction = false;    // scores by them alone: a kernel may decide in its place
    bool learns = false;           // from pictures
    bool draws = false;            // random numbers, anew in each pass
    bool reads_attention = false;  // of [CLS], the last before the stage: needs both
    /// Of kBest.
    std::unique_ptr<SelectionPolicy> (*make)(const std::shared_ptr<const InferenceModel>&,
                                             const PolicyInputs&) = nullptr;
};

/// Which policies a command can serve.
using PolicyFilter = bool (*)(const PolicyEntry&);

inline bool any_policy(const PolicyEntry&) {
    return true;
}
/// Those that need no pictures beforehand.
inline bool learns_nothing(const PolicyEntry& policy) {
    return !policy.learns;
}
/// Those of which a token stays what it was or goes.
inline bool keeps_tokens(const PolicyEntry& policy) {
    return policy.selects != Selects::kAveraged;
}

/// The names of those that can be served, in the table's order; and a text of them and their descriptions.
std::vector<std::string> policy_names(PolicyFilter serves = any_policy);
std::string describe_policies(PolicyFilter serves = any_policy);

/// Throws Error listing the names for one that is not there or can't be served.
const PolicyEntry& find_policy(const std::string& name, PolicyFilter serves = any_policy);

/// What keeps the policy from choosing a model's tokens ("cls_attention was asked for of a model without [CLS], ...");
/// empty: nothing.
std::string find_policy_fault(const PolicyEntry& policy, const ModelSettings& settings);

/// Whether the plan's policy needs pictures to learn from: static always, per_image where the plan gives no thresholds.
bool needs_pictures(const PruningPlan& plan);

/// Whether prediction modules say what such a plan keeps.
bool asks_prediction_modules(const PruningPlan& plan);

/// The policy of that name, of those that score tokens. Throws Error listing the names for any other, where it would
/// learn and has no pictures, and where the model has not what it looks at.
std::unique_ptr<SelectionPolicy> make_policy(const std::string& name,
                                             const std::shared_ptr<const InferenceModel>& model,
                                             const PolicyInputs& inputs = {});

/// "static" as it has been learnt: the same positions for every image, those with the highest scores.
/// @param scores a stage: (N)
std::unique_ptr<SelectionPolicy> make_static_policy(std::vector<at::Tensor> scores);

/// The plan with the numbers that its policy finds by itself: per_image thresholds that keep as many tokens of the
/// pictures as the plan counts, or what averaging leaves. Throws Error for an unknown policy, for a plan that does not
/// fit the model or its policy, and where pictures are needed and missing.
PruningPlan complete_plan(PruningPlan plan, const InferenceModel& model, const PolicyInputs& inputs);

}  // namespace dynvit
