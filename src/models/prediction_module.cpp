#include "dynvit/models/prediction_module.hpp"

#include <ATen/ATen.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/normalization.h>

namespace dynvit {

using torch::nn::GELU;
using torch::nn::LayerNorm;
using torch::nn::LayerNormOptions;
using torch::nn::Linear;
using torch::nn::Sequential;

PredictionModuleImpl::PredictionModuleImpl(std::int64_t channels)
    : in_conv_(register_module("in_conv", Sequential(LayerNorm(LayerNormOptions({channels}).eps(kPredictorNormEpsilon)),
                                                     Linear(channels, channels), GELU()))),
      out_conv_(register_module(
          "out_conv", Sequential(Linear(channels, channels / 2), GELU(), Linear(channels / 2, channels / 4), GELU(),
                                 Linear(channels / 4, 2)))) {}

at::Tensor PredictionModuleImpl::forward(const at::Tensor& x, const at::Tensor& decision) {
    const at::Tensor h = in_conv_->forward(x);
    const std::int64_t half = h.size(2) / 2;
    const at::Tensor local = h.slice(2, 0, half), global = h.slice(2, half);  // (B, n, C/2)
    at::Tensor mean;                                                          // over the kept tokens, (B, 1, C/2)
    if (decision.defined()) {
        const at::Tensor kept = decision.unsqueeze(-1);  // (B, n, 1)
        const at::Tensor count = kept.sum(1, true);
        mean = (global * kept).sum(1, true) / at::where(count > 0.5, count, 1.0);
    } else {
        mean = h.size(1) > 0 ? global.mean(1, true) : global.sum(1, true);
    }
    return log_probabilities(local, mean.expand_as(local));
}

// Each token's own features beside the mean, both (..., C/2).
at::Tensor PredictionModuleImpl::log_probabilities(const at::Tensor& local, const at::Tensor& mean) {
    const at::Tensor z = at::cat({local, mean.to(local.scalar_type())}, -1);
    return at::log_softmax(out_conv_->forward(z), -1, at::kFloat);
}

}  // namespace dynvit
