#include "dynvit/train/blend.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

namespace dynvit {

Blend::Blend(const DynamicVitImpl& start, double share)
    : share_(share), blended_(start.settings(), at::make_generator<at::CPUGeneratorImpl>(0)) {
    for (const at::Tensor& parameter : start.parameters()) start_.push_back(parameter.detach().clone());
    blended_->to(start_.front().device());
    for (at::Tensor& parameter : blended_->parameters()) parameter.requires_grad_(false);
}

DynamicVit Blend::with(const DynamicVitImpl& trained) {
    const torch::NoGradGuard no_grad;
    const auto from = trained.named_parameters();
    std::vector<at::Tensor> to = blended_->parameters();
    for (std::size_t i = 0; i < to.size(); ++i) {
        const at::Tensor& learnt = from[i].value();
        to[i].copy_(is_of_prediction_module(from[i].key()) ? learnt : at::lerp(start_[i], learnt, share_));
    }
    return blended_;
}

}  // namespace dynvit
