#include "dynvit/train/blend.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "dynvit/weights/state_dict.hpp"

namespace dynvit {

Blend::Blend(const DynamicVitImpl& start, double share)
    : share_(share), blended_(start.settings(), at::make_generator<at::CPUGeneratorImpl>(0)) {
    for (const auto& [name, tensor] : named_state(start)) start_.push_back(tensor.detach().clone());
    blended_->to(start_.front().device());
    for (at::Tensor& parameter : blended_->parameters()) parameter.requires_grad_(false);
}

DynamicVit Blend::with(const DynamicVitImpl& trained) {
    const torch::NoGradGuard no_grad;
    const auto from = named_state(trained), to = named_state(*blended_);
    for (std::size_t i = 0; i < to.size(); ++i) {
        const auto& [name, learnt] = from[i];
        const bool blends = learnt.is_floating_point() && !is_of_prediction_module(name);
        to[i].second.copy_(blends ? at::lerp(start_[i], learnt, share_) : learnt);
    }
    return blended_;
}

}  // namespace dynvit
