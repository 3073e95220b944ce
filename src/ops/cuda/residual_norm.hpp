// The residual + layer norm kernels for tensors. See ops/residual_norm.hpp for the formula.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace dynvit::cuda {

/// @return why the kernels do not take tokens of so many channels: they take multiples of 8 up to 2048; empty where
/// they do
std::string why_no_residual_norm(std::int64_t channels);

/// @return whether the kernels take these: all on one GPU, the types and channels that ops/residual_norm.hpp lists. The
/// forward kernel writes float8 e4m3 too, where the GPU multiplies it: see ops/scaled_rows.hpp.
bool residual_norm_supports(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& scale,
                            const at::Tensor& weight, const at::Tensor& bias, at::ScalarType output);

struct ResidualNormResult {
    at::Tensor sum, normed;  // (B, n, C)
    at::Tensor statistics;   // (B n, 2) float32, mean and 1 / deviation; undefined unless wanted
    at::Tensor row_scales;   // (B n) float32, where `normed` is float8
};

/// Computes sum and norm of what residual_norm_supports(). @param wants_statistics whether residual_norm_backward()
/// will follow, which needs them
ResidualNormResult residual_norm_forward(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& scale,
                                         const at::Tensor& weight, const at::Tensor& bias, double epsilon,
                                         at::ScalarType output, bool wants_statistics);

/// Which gradients residual_norm_backward() computes.
struct ResidualNormWants {
    bool x, branch, weight;  // `weight` stands for the bias too
};

struct ResidualNormGradients {
    at::Tensor x, branch, weight, bias;  // undefined unless wanted; weight and bias in float32
};

/// Computes the gradients from what residual_norm_forward() was given and returned.
/// @param to_sum, to_normed (B, n, C): the gradients of its results; to_sum may be undefined
/// @param branch_type type of the branch, and of its gradient
ResidualNormGradients residual_norm_backward(const at::Tensor& to_sum, const at::Tensor& to_normed,
                                             const at::Tensor& sum, const at::Tensor& statistics,
                                             const at::Tensor& scale, const at::Tensor& weight,
                                             at::ScalarType branch_type, ResidualNormWants wants);

}  // namespace dynvit::cuda
