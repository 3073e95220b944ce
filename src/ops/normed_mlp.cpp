#include "dynvit/ops/normed_mlp.hpp"

#include <ATen/ATen.h>

#ifdef DYNVIT_HOPPER_KERNELS
#include "cuda/normed_mlp.hpp"
#endif

namespace dynvit {

bool NormedMlp::supports([[maybe_unused]] const at::Device& device, [[maybe_unused]] at::ScalarType type,
                         [[maybe_unused]] std::int64_t channels, [[maybe_unused]] std::int64_t hidden) {
#ifdef DYNVIT_HOPPER_KERNELS
    return cuda::normed_mlp_supports(device, type, channels, hidden);
#else
    return false;
#endif
}

NormedMlp::NormedMlp(const Parameters& parameters, at::ScalarType type) : epsilon_(parameters.norm_epsilon) {
    const auto& [norm_weight, norm_bias, epsilon, fc1_weight, fc1_bias, fc2_weight, fc2_bias] = parameters;
    const std::int64_t channels = fc1_weight.size(1), hidden = fc1_weight.size(0);
    TORCH_CHECK(supports(fc1_weight.device(), type, channels, hidden), "no kernel for an MLP of ", channels,
                " channels and ", hidden, " hidden values in ", type, " on ", fc1_weight.device());
    const auto floats = [&](const at::Tensor& from, std::int64_t size) {
        return from.defined() ? from.to(at::kFloat) : at::zeros({size}, fc1_weight.options().dtype(at::kFloat));
    };
    const at::Tensor weight = fc1_weight.to(at::kFloat);
    fc1_weight_ = (weight * norm_weight.to(at::kFloat)).to(type).contiguous();
    fc1_sums_ = fc1_weight_.to(at::kFloat).sum(1);
    fc1_bias_ = floats(fc1_bias, hidden) + at::mv(weight, norm_bias.to(at::kFloat));
    fc2_weight_ = fc2_weight.to(type, /*non_blocking=*/false, /*copy=*/true).contiguous();
    fc2_bias_ = floats(fc2_bias, channels).clone();
}

bool NormedMlp::pays([[maybe_unused]] std::int64_t rows) const {
#ifdef DYNVIT_HOPPER_KERNELS
    return cuda::normed_mlp_pays(fc1_weight_.device(), rows);
#else
    return false;
#endif
}

at::Tensor NormedMlp::operator()(const at::Tensor& x) const {
#ifdef DYNVIT_HOPPER_KERNELS
    return cuda::normed_mlp(x, {fc1_weight_, fc1_sums_, fc1_bias_, fc2_weight_, fc2_bias_, epsilon_});
#else
    return x;  // no object can be made
#endif
}

}  // namespace dynvit
