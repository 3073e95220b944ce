// Who decides which tokens stay: the prediction modules, or a baseline to compare them with.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dynvit/infer/inference_model.hpp"

namespace dynvit {

/// Scores the tokens that are left; those with the highest stay.
class SelectionPolicy {
  public:
    virtual ~SelectionPolicy() = default;
    virtual at::Tensor scores(const StageInput& input) = 0;  // (B, n)
};

/// The same positions for every image, those with the highest scores. @param scores a stage: (N)
std::unique_ptr<SelectionPolicy> make_static_policy(std::vector<at::Tensor> scores);

/// The names of make_policy.
const std::vector<std::string>& policy_names();

/// "predicted": the prediction modules' log-probability to keep. "random": every token alike, drawn from the seed.
/// "cls_attention": how much [CLS] looks at a token in the block before, mean over the heads; needs no training (EViT,
/// Liang et al., 2022). At block 0, before which there is none, that one is an Error.
/// Throws Error listing the names for any other.
std::unique_ptr<SelectionPolicy> make_policy(const std::string& name, std::shared_ptr<const InferenceModel> model,
                                             std::uint64_t seed = 0);

}  // namespace dynvit
