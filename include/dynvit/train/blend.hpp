// Weights between those that training started from and those that it came to.
#pragma once

#include "dynvit/models/dynamic_vit.hpp"

namespace dynvit {

/// A straight line through weight space from a pretrained model to the fine-tuned one: points on it often forget less
/// and learn as much (Wortsman et al., 2022, "Robust fine-tuning of zero-shot models"). The prediction modules, which a
/// dense model lacks, are the fine-tuned model's own, and so are buffers that hold no floating-point numbers.
class Blend {
  public:
    /// Starts from the model's present weights, on its device.
    /// @param share of the way from there to the fine-tuned weights, 0 to 1
    Blend(const DynamicVitImpl& start, double share);

    /// The model at that place between the start and `trained`; the next call changes it.
    DynamicVit with(const DynamicVitImpl& trained);

  private:
    double share_;
    std::vector<at::Tensor> start_;  // parameters and buffers, see named_state
    DynamicVit blended_;
};

}  // namespace dynvit
