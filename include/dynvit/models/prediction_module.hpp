// The small network before a pruning stage: for each patch token, the probability that later blocks need it.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "dynvit/models/vit_parts.hpp"

namespace dynvit {

class PredictionModuleImpl : public torch::nn::Module {
  public:
    /// @param generator draws the weights: normal numbers of standard deviation 0.02, biases zero
    PredictionModuleImpl(std::int64_t channels, const at::Generator& generator);

    /// DynamicViT (Rao et al., 2021), section 3.2: a token's own features beside the mean over the tokens still kept.
    /// @param x (B, skipped + n, C): patch tokens, behind `skipped` rows that play no part, such as [CLS]
    /// @param decision which of them are still kept, (B, n), 1 or 0; undefined: all. An image that keeps none has a
    /// mean of zero.
    /// @return log-probabilities, (B, n, 2); column 0 is "keep"
    at::Tensor forward(const at::Tensor& x, const at::Tensor& decision = {}, std::int64_t skipped = 0);

  private:
    struct Linear {
        at::Tensor weight, bias;
    };

    at::Tensor project(const at::Tensor& x);
    at::Tensor log_probabilities(const at::Tensor& local, const at::Tensor& mean);

    PredictionPart part_;
    at::Tensor norm_weight_, norm_bias_;
    Linear in_;
    std::array<Linear, 3> out_;
};
TORCH_MODULE(PredictionModule);

}  // namespace dynvit
