// Keeping or dropping a token, drawn so that gradients flow through the draw.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

namespace dynvit {

/// -log(-log u) for uniform u: what makes an argmax over log-probabilities a draw from them (Jang et al., 2017).
/// @return float32 of the given shape
at::Tensor sample_gumbel(at::IntArrayRef shape, at::Generator generator, const at::Device& device);

/// Hard Gumbel-Softmax with a straight-through gradient, times the decision before: what was dropped stays dropped.
/// @param log_prob (B, N, 2), column 0 "keep"; @param previous (B, N), 1 or 0
/// @param gumbel noise, (B, N, 2); @param temperature of the softmax that the gradient sees
/// @return (B, N): exactly 1 or 0 forward, the soft decision's gradient backward
at::Tensor gumbel_decision(const at::Tensor& log_prob, const at::Tensor& previous, const at::Tensor& gumbel,
                           double temperature = 1.0);

}  // namespace dynvit
