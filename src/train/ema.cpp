#include "dynvit/train/ema.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "dynvit/weights/state_dict.hpp"

namespace dynvit {

Ema::Ema(const DynamicVitImpl& model, const EmaSettings& settings)
    : settings_(settings), average_(model.settings(), at::make_generator<at::CPUGeneratorImpl>(0)) {
    const torch::NoGradGuard no_grad;
    average_->to(model.parameters().front().device());
    for (at::Tensor& parameter : average_->parameters()) parameter.requires_grad_(false);
    const auto from = named_state(model), to = named_state(*average_);
    for (std::size_t i = 0; i < to.size(); ++i) to[i].second.copy_(from[i].second);
}

void Ema::update(const DynamicVitImpl& model, std::int64_t steps) {
    const torch::NoGradGuard no_grad;
    const double done = static_cast<double>(steps);
    const double decay = settings_.warmup ? std::min(settings_.decay, (1 + done) / (10 + done)) : settings_.decay;
    const auto from = named_state(model), to = named_state(*average_);
    std::vector<at::Tensor> averages, values;
    for (std::size_t i = 0; i < to.size(); ++i) {
        if (to[i].second.is_floating_point()) {
            averages.push_back(to[i].second);
            values.push_back(from[i].second);
        } else {  // a count has no average
            to[i].second.copy_(from[i].second);
        }
    }
    at::_foreach_lerp_(averages, values, 1 - decay);
}

}  // namespace dynvit
