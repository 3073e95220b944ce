#include "dynvit/infer/selection_policy.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

class PredictedPolicy : public SelectionPolicy {
  public:
    explicit PredictedPolicy(DynamicVit model) : model_(std::move(model)) {}
    std::string name() const override { return "predicted"; }
    at::Tensor scores(const StageInput& input) override {
        return model_->score_predictor(input.stage)(input.tokens).select(-1, 0);
    }

  private:
    DynamicVit model_;
};

class RandomPolicy : public SelectionPolicy {
  public:
    explicit RandomPolicy(std::uint64_t seed) : generator_(at::make_generator<at::CPUGeneratorImpl>(seed)) {}
    std::string name() const override { return "random"; }
    at::Tensor scores(const StageInput& input) override {  // drawn on the CPU: the same numbers on every device
        return at::rand({input.tokens.size(0), input.tokens.size(1)}, generator_).to(input.tokens.device());
    }

  private:
    at::Generator generator_;
};

}  // namespace

const std::vector<std::string>& policy_names() {
    static const std::vector<std::string> names = {"predicted", "random"};
    return names;
}

std::unique_ptr<SelectionPolicy> make_policy(const std::string& name, DynamicVit model, std::uint64_t seed) {
    if (name == "predicted") return std::make_unique<PredictedPolicy>(std::move(model));
    if (name == "random") return std::make_unique<RandomPolicy>(seed);
    throw Error("policy", "unknown selection policy '", name, "'; expected one of ", join(policy_names(), ", "));
}

}  // namespace dynvit
