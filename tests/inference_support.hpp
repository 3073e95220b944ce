// A model run as inference runs it.
#pragma once

#include "dynvit/infer/pruned_vit.hpp"

namespace dynvit::test {

inline std::shared_ptr<const InferenceModel> engine_of(const DynamicVit& model, at::ScalarType precision = at::kFloat) {
    return std::make_shared<const InferenceModel>(*model, precision);
}

inline PrunedOutput prune(const DynamicVit& model, const at::Tensor& images, const std::vector<std::int64_t>& tokens,
                          const std::string& policy = "predicted", std::uint64_t seed = 0) {
    const auto engine = engine_of(model);
    const auto scores = model->settings().predicts() ? make_policy(policy, engine, {.seed = seed}) : nullptr;
    return pruned_forward(*engine, images, scores.get(), tokens);
}

}  // namespace dynvit::test
