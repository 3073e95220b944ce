#include "dynvit/train/ema.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

namespace dynvit {

Ema::Ema(const DynamicVitImpl& model, const EmaSettings& settings)
    : settings_(settings), average_(model.settings(), at::make_generator<at::CPUGeneratorImpl>(0)) {
    const torch::NoGradGuard no_grad;
    average_->to(model.parameters().front().device());
    const std::vector<at::Tensor> from = model.parameters();
    std::vector<at::Tensor> to = average_->parameters();
    for (std::size_t i = 0; i < to.size(); ++i) to[i].requires_grad_(false).copy_(from[i]);
}

void Ema::update(const DynamicVitImpl& model, std::int64_t steps) {
    const torch::NoGradGuard no_grad;
    const double done = static_cast<double>(steps);
    const double decay = settings_.warmup ? std::min(settings_.decay, (1 + done) / (10 + done)) : settings_.decay;
    at::_foreach_lerp_(average_->parameters(), model.parameters(), 1 - decay);
}

}  // namespace dynvit
