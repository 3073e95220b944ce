// What a policy learns from some pictures, without their labels.
#pragma once

#include "dynvit/infer/inference_model.hpp"

namespace dynvit {

/// Per-image thresholds with which the pictures together keep as many tokens as a fixed count would: for each stage the
/// value between the probabilities of the last token that goes on and the first that does not.
/// @param pictures (M, 3, H, W), uint8
/// @param tokens a count a stage, not growing
std::vector<double> find_thresholds(const InferenceModel& model, const at::Tensor& pictures,
                                    const std::vector<std::int64_t>& tokens);

/// For the static policy: how likely each position is kept, the mean over the pictures of log pi_keep where no token
/// has been dropped. @param pictures (M, 3, H, W), uint8 @return a stage: (N), on the model's device
std::vector<at::Tensor> find_static_scores(const InferenceModel& model, const at::Tensor& pictures);

}  // namespace dynvit
