// The kernel of a block's second half for tensors. See ops/normed_mlp.hpp for the formula.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit::cuda {

/// As NormedMlpRun of normed_mlp.cuh has them.
struct NormedMlpWeights {
    at::Tensor fc1_weight, fc1_sums, fc1_bias, fc2_weight, fc2_bias;
    double epsilon;
};

bool normed_mlp_supports(const at::Device& device, at::ScalarType type, std::int64_t channels, std::int64_t hidden);
bool normed_mlp_pays(const at::Device& device, std::int64_t rows);
at::Tensor normed_mlp(const at::Tensor& x, const NormedMlpWeights& weights);

}  // namespace dynvit::cuda
