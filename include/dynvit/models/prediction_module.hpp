// The small network before a pruning stage: for each patch token, the probability that later blocks need it.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>

#include "dynvit/models/vit_parts.hpp"

namespace dynvit {

class PredictionModuleImpl : public torch::nn::Module {
  public:
    explicit PredictionModuleImpl(std::int64_t channels);

    /// DynamicViT (Rao et al., 2021), section 3.2: a token's own features beside the mean over the tokens still kept.
    /// @param x (B, skipped + n, C): patch tokens, behind `skipped` rows that play no part, such as [CLS]
    /// @param decision which of them are still kept, (B, n), 1 or 0; undefined: all. An image that keeps none has the
    /// mean
    ///     zero.
    /// @return log-probabilities, (B, n, 2); column 0 is "keep"
    at::Tensor forward(const at::Tensor& x, const at::Tensor& decision = {}, std::int64_t skipped = 0);

  private:
    at::Tensor project(const at::Tensor& x);
    at::Tensor log_probabilities(const at::Tensor& local, const at::Tensor& mean);

    torch::nn::Sequential in_conv_{nullptr}, out_conv_{nullptr};
};
TORCH_MODULE(PredictionModule);

}  // namespace dynvit
