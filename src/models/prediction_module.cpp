#include "dynvit/models/prediction_module.hpp"

#include <ATen/ATen.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/normalization.h>

#include "dynvit/ops/half_linear.hpp"
#include "mixed_precision.hpp"

namespace dynvit {

using torch::nn::GELU;
using torch::nn::LayerNorm;
using torch::nn::LayerNormImpl;
using torch::nn::LayerNormOptions;
using torch::nn::Linear;
using torch::nn::LinearImpl;
using torch::nn::Sequential;

PredictionModuleImpl::PredictionModuleImpl(std::int64_t channels)
    : in_conv_(register_module(
          "in_conv", Sequential(LayerNorm(LayerNormOptions({channels}).eps(prediction_part("", channels).norm.epsilon)),
                                Linear(channels, channels), GELU()))),
      out_conv_(register_module(
          "out_conv", Sequential(Linear(channels, channels / 2), GELU(), Linear(channels / 2, channels / 4), GELU(),
                                 Linear(channels / 4, 2)))) {}

at::Tensor PredictionModuleImpl::forward(const at::Tensor& x, const at::Tensor& decision, std::int64_t skipped) {
    const at::Tensor h = project(x).split_with_sizes({skipped, x.size(1) - skipped}, 1)[1];
    const std::vector<at::Tensor> halves = h.split_with_sizes({h.size(2) / 2, h.size(2) - h.size(2) / 2}, 2);
    const at::Tensor &local = halves[0], &global = halves[1];  // (B, n, C/2)
    at::Tensor mean;                                           // over the kept tokens, (B, 1, C/2)
    if (decision.defined()) {
        const at::Tensor kept = decision.unsqueeze(-1);  // (B, n, 1)
        const at::Tensor count = kept.sum(1, true);
        mean = (global * kept).sum(1, true) / at::where(count > 0.5, count, 1.0);
    } else {
        mean = h.size(1) > 0 ? global.mean(1, true) : global.sum(1, true);
    }
    return log_probabilities(local, mean.expand_as(local));
}

// The norm and the first layer: (B, n, C) -> (B, n, C).
at::Tensor PredictionModuleImpl::project(const at::Tensor& x) {
    const std::optional<at::ScalarType> half = autocast_on_gpu(x);
    if (!half) return in_conv_->forward(x);
    const auto norm = in_conv_->ptr<LayerNormImpl>(0);
    const auto layer = in_conv_->ptr<LinearImpl>(1);
    const at::Tensor normed = norm_of({x}, {norm->weight, norm->bias, norm->options.eps()}, *half).normed;
    return at::gelu(half_linear(normed, layer->weight, layer->bias));
}

// Each token's own features beside the mean, both (..., C/2).
at::Tensor PredictionModuleImpl::log_probabilities(const at::Tensor& local, const at::Tensor& mean) {
    const at::Tensor z = at::cat({local, mean.to(local.scalar_type())}, -1);
    if (!autocast_on_gpu(z)) return at::log_softmax(out_conv_->forward(z), -1, at::kFloat);
    at::Tensor h = z;
    for (const std::size_t i : {0, 2}) {  // the last layer's two outputs are too few for the tensor cores
        const auto layer = out_conv_->ptr<LinearImpl>(i);
        h = at::gelu(half_linear(h, layer->weight, layer->bias));
    }
    return at::log_softmax(out_conv_->ptr<LinearImpl>(4)->forward(h), -1, at::kFloat);
}

}  // namespace dynvit
