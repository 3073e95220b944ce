#include "dynvit/models/gumbel_decision.hpp"

#include <ATen/ATen.h>

namespace dynvit {

at::Tensor sample_gumbel(at::IntArrayRef shape, at::Generator generator, const at::Device& device) {
    return at::empty(shape, at::device(device).dtype(at::kFloat)).exponential_(1.0, generator).log_().neg_();
}

at::Tensor gumbel_decision(const at::Tensor& log_prob, const at::Tensor& previous, const at::Tensor& gumbel,
                           double temperature) {
    const at::Tensor soft = at::softmax((log_prob + gumbel) / temperature, -1).select(-1, 0);  // (B, N)
    const at::Tensor hard = (soft.detach() >= 0.5).to(soft.scalar_type());
    return (hard + (soft - soft.detach())) * previous;  // soft - soft is exactly 0
}

}  // namespace dynvit
