#include "dynvit/infer/selection_policy.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

class PredictedPolicy : public SelectionPolicy {
  public:
    explicit PredictedPolicy(std::shared_ptr<const InferenceModel> model) : model_(std::move(model)) {}
    at::Tensor scores(const StageInput& input) override { return model_->keep_log_probability(input.stage, input.x); }

  private:
    std::shared_ptr<const InferenceModel> model_;
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
        return scores_.at(static_cast<std::size_t>(input.stage))
            .index_select(0, input.positions.flatten())
            .view_as(input.positions);
    }

  private:
    std::vector<at::Tensor> scores_;  // a stage: (N)
};

class ClsAttentionPolicy : public SelectionPolicy {
  public:
    explicit ClsAttentionPolicy(std::shared_ptr<const InferenceModel> model) : model_(std::move(model)) {}
    at::Tensor scores(const StageInput& input) override {
        if (!input.before.defined()) {
            throw Error("policy", "cls_attention was asked for at a stage before block 0, expected a block before it");
        }
        return model_->cls_attention(input.block - 1, input.before);
    }

  private:
    std::shared_ptr<const InferenceModel> model_;
};

}  // namespace

std::unique_ptr<SelectionPolicy> make_static_policy(std::vector<at::Tensor> scores) {
    return std::make_unique<StaticPolicy>(std::move(scores));
}

const std::vector<std::string>& policy_names() {
    static const std::vector<std::string> names = {"predicted", "random", "cls_attention"};
    return names;
}

std::unique_ptr<SelectionPolicy> make_policy(const std::string& name, std::shared_ptr<const InferenceModel> model,
                                             std::uint64_t seed) {
    if (name == "predicted") return std::make_unique<PredictedPolicy>(std::move(model));
    if (name == "random") return std::make_unique<RandomPolicy>(seed);
    if (name == "cls_attention") return std::make_unique<ClsAttentionPolicy>(std::move(model));
    throw Error("policy", "unknown selection policy '", name, "'; expected one of ", join(policy_names(), ", "));
}

}  // namespace dynvit
