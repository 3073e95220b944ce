#include "dynvit/infer/selection_policy.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "dynvit/core/error.hpp"
#include "dynvit/infer/calibration.hpp"
#include "dynvit/infer/pruned_vit.hpp"

namespace dynvit {
namespace {

using Model = std::shared_ptr<const InferenceModel>;
using Policy = std::unique_ptr<SelectionPolicy>;

// The prediction modules' log-probability to keep.
class PredictedPolicy : public SelectionPolicy {
  public:
    explicit PredictedPolicy(Model model) : model_(std::move(model)) {}
    at::Tensor scores(const StageInput& input) override { return model_->keep_log_probability(input.stage, input.x); }
    at::Tensor fusion_weights(const at::Tensor& scores) const override { return shares_of_log_probabilities(scores); }

  private:
    Model model_;
};

class RandomPolicy : public SelectionPolicy {
  public:
    explicit RandomPolicy(std::uint64_t seed) : generator_(at::make_generator<at::CPUGeneratorImpl>(seed)) {}
    at::Tensor scores(const StageInput& input) override {  // drawn on the CPU: the same numbers on every device
        return at::rand({input.tokens.size(0), input.tokens.size(1)}, generator_).to(input.tokens.device());
    }

  private:
    at::Generator generator_;
};

class StaticPolicy : public SelectionPolicy {
  public:
    explicit StaticPolicy(std::vector<at::Tensor> scores) : scores_(std::move(scores)) {}
    at::Tensor scores(const StageInput& input) override {
        const at::Tensor& of_places = scores_.at(static_cast<std::size_t>(input.stage));
        const at::Tensor of_fused = of_places.mean(0, /*keepdim=*/true);  // which is at no place: position N
        return at::cat({of_places, of_fused}).index_select(0, input.positions.flatten()).view_as(input.positions);
    }
    at::Tensor fusion_weights(const at::Tensor& scores) const override { return shares_of_log_probabilities(scores); }

  private:
    std::vector<at::Tensor> scores_;  // a stage: (N), means of log-probabilities
};

// Needs no training. The attention is what EViT weighs fused tokens by, too (Liang et al., 2022).
class ClsAttentionPolicy : public SelectionPolicy {
  public:
    explicit ClsAttentionPolicy(Model model) : model_(std::move(model)) {}
    at::Tensor scores(const StageInput& input) override {
        return model_->cls_attention(input.attended, input.before, input.context);
    }
    at::Tensor fusion_weights(const at::Tensor& scores) const override { return scores; }

  private:
    Model model_;
};

Policy make_predicted(const Model& model, const PolicyInputs&) {
    return std::make_unique<PredictedPolicy>(model);
}
Policy make_random(const Model&, const PolicyInputs& inputs) {
    return std::make_unique<RandomPolicy>(inputs.seed);
}
Policy learn_static(const Model& model, const PolicyInputs& inputs) {
    return make_static_policy(find_static_scores(*model, inputs.pictures));
}
Policy make_cls_attention(const Model& model, const PolicyInputs&) {
    return std::make_unique<ClsAttentionPolicy>(model);
}

constexpr PolicyEntry kPolicies[] = {
    {.name = kPredicted,
     .description = "the prediction modules",
     .predicts = true,
     .is_prediction = true,
     .make = make_predicted},
    {.name = kPerImage,
     .description = "what they find likelier needed than a threshold, in each image another number",
     .selects = Selects::kAbove,
     .predicts = true},
    {.name = "random", .description = "chance", .draws = true, .make = make_random},
    {.name = "static",
     .description = "the same places of every image, learnt from some pictures",
     .learns = true,
     .make = learn_static},
    {.name = "cls_attention",
     .description = "how much [CLS] looked at a token last",
     .reads_attention = true,
     .make = make_cls_attention},
    {.name = kSimilarity,
     .description = "nobody: with the reduction tome the most similar tokens are averaged",
     .selects = Selects::kMatched},
    {.name = "structural",
     .description = "nobody: tokens are averaged two by two in the middle of the network",
     .selects = Selects::kAveraged},
};

void check_pictures(const PolicyInputs& inputs, const std::string& learner, const char* instead = "") {
    if (inputs.pictures.defined() && inputs.pictures.size(0) > 0) return;
    throw Error("policy", learner, " learns from pictures: found none, expected some", instead);
}

// What of the reduction does not go with the policy; empty where it does.
std::string find_reduction_fault(const PolicyEntry& policy, const ModelSettings& settings) {
    const bool chooses = policy.selects != Selects::kAveraged;
    if (!chooses || settings.matches() == (policy.selects == Selects::kMatched)) return {};
    return str(policy.name, ": found model.reduction ", settings.reduction, ", expected ",
               settings.matches() ? str("the policy ", kSimilarity, " with it") : "tome with this policy");
}

// What a policy that looks at attention misses of the model; empty where all is there.
std::string find_attention_fault(const PolicyEntry& policy, const ModelSettings& settings) {
    if (!policy.reads_attention) return {};
    if (!settings.class_token) {
        return str(policy.name, " was asked for of a model without [CLS], expected one with class_token");
    }
    if (settings.stages() > 0 && settings.pruning_loc.front() == 0 && !settings.stages_in_blocks()) {
        return str(policy.name, " was asked for at a stage before block 0, expected a block before it");
    }
    return {};
}

}  // namespace

at::Tensor SelectionPolicy::fusion_weights(const at::Tensor& scores) const {
    return scores / scores.sum(-1, /*keepdim=*/true);
}

std::vector<std::string> policy_names(PolicyFilter serves) {
    std::vector<std::string> names;
    for (const PolicyEntry& policy : kPolicies) {
        if (serves(policy)) names.emplace_back(policy.name);
    }
    return names;
}

std::string describe_policies(PolicyFilter serves) {
    std::vector<std::string> parts;
    for (const PolicyEntry& policy : kPolicies) {
        if (serves(policy)) parts.push_back(str(policy.name, " (", policy.description, ')'));
    }
    return join(parts, ", ");
}

const PolicyEntry& find_policy(const std::string& name, PolicyFilter serves) {
    const PolicyEntry* const found =
        std::ranges::find_if(kPolicies, [&](const PolicyEntry& policy) { return name == policy.name; });
    const bool known = found != std::end(kPolicies);
    if (known && serves(*found)) return *found;
    throw Error("policy", known ? "not served here: selection policy '" : "unknown selection policy '", name,
                "'; expected one of ", join(policy_names(serves), ", "));
}

std::string find_policy_fault(const PolicyEntry& policy, const ModelSettings& settings) {
    const std::string of_reduction = find_reduction_fault(policy, settings);
    return of_reduction.empty() ? find_attention_fault(policy, settings) : of_reduction;
}

bool needs_pictures(const PruningPlan& plan) {
    const PolicyEntry& policy = find_policy(plan.policy);
    if (policy.selects == Selects::kAbove) return plan.thresholds.empty() && !plan.tokens.empty();
    return policy.learns && !plan.dense();
}

bool asks_prediction_modules(const PruningPlan& plan) {
    return !plan.dense() && find_policy(plan.policy).predicts;
}

std::unique_ptr<SelectionPolicy> make_policy(const std::string& name,
                                             const std::shared_ptr<const InferenceModel>& model,
                                             const PolicyInputs& inputs) {
    const PolicyEntry& policy = find_policy(name, [](const PolicyEntry& entry) { return entry.make != nullptr; });
    if (const std::string fault = find_attention_fault(policy, model->settings()); !fault.empty()) {
        throw Error("policy", fault);
    }
    if (policy.learns) check_pictures(inputs, policy.name);
    return policy.make(model, inputs);
}

std::unique_ptr<SelectionPolicy> make_static_policy(std::vector<at::Tensor> scores) {
    return std::make_unique<StaticPolicy>(std::move(scores));
}

PruningPlan complete_plan(PruningPlan plan, const InferenceModel& model, const PolicyInputs& inputs) {
    const ModelSettings& settings = model.settings();
    const PolicyEntry& policy = find_policy(plan.policy);
    if (policy.selects != Selects::kAveraged) {
        check_plan(plan, settings);
        const std::string fault = plan.dense() ? "" : find_reduction_fault(policy, settings);
        if (!fault.empty()) throw Error("policy", fault);
    }
    switch (policy.selects) {
        case Selects::kBest:
        case Selects::kMatched:
            if (!plan.thresholds.empty()) {
                throw Error("policy", policy.name, ": found thresholds, expected a count of tokens a stage");
            }
            break;
        case Selects::kAbove:
            if (plan.dense()) throw Error("policy", policy.name, ": found no thresholds, expected one a stage");
            if (!plan.thresholds.empty()) break;
            check_pictures(inputs, policy.name, ", or thresholds");
            plan.thresholds = find_thresholds(model, inputs.pictures, plan.tokens);
            break;
        case Selects::kAveraged:
            if (settings.stages() == 0) {
                throw Error("policy", policy.name, ": the model has no stage, expected one to pool at");
            }
            plan.tokens = {structural_tokens(settings)};  // of one stage alone
            break;
    }
    return plan;
}

}  // namespace dynvit
