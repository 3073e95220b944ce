#include "dynvit/models/prediction_module.hpp"

#include <ATen/ATen.h>

#include "dynvit/ops/half_linear.hpp"
#include "mixed_precision.hpp"
#include "parameter_tree.hpp"

namespace dynvit {

PredictionModuleImpl::PredictionModuleImpl(std::int64_t channels, const at::Generator& generator)
    : part_(prediction_part("", channels)) {
    register_parameters(*this, prediction_parameters(part_), generator);
    const auto parameters = named_parameters();
    const auto linear = [&](const LinearPart& part) {
        return Linear{parameters[part.name + ".weight"], parameters[part.name + ".bias"]};
    };
    norm_weight_ = parameters[part_.norm.name + ".weight"];
    norm_bias_ = parameters[part_.norm.name + ".bias"];
    in_ = linear(part_.in);
    for (std::size_t i = 0; i < out_.size(); ++i) out_[i] = linear(part_.out[i]);
}

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
    const at::ScalarType type = autocast_on_gpu(x).value_or(x.scalar_type());
    const at::Tensor normed = norm_of({x}, {norm_weight_, norm_bias_, part_.norm.epsilon}, type).normed;
    return at::gelu(half_linear(normed, in_.weight, in_.bias));
}

// Returns log pi_keep and log pi_drop of each token, (..., 2).
// @param local a token's own features, (..., C/2)
// @param mean the image's, (..., C/2), of one token's shape or as many
at::Tensor PredictionModuleImpl::log_probabilities(const at::Tensor& local, const at::Tensor& mean) {
    at::Tensor h = at::cat({local, mean.to(local.scalar_type())}, -1);
    for (const std::size_t i : {0, 1}) h = at::gelu(half_linear(h, out_[i].weight, out_[i].bias));
    // The last layer's two outputs are too few for the tensor cores.
    return at::log_softmax(at::linear(h, out_[2].weight, out_[2].bias), -1, at::kFloat);
}

}  // namespace dynvit
