// A residual connection and the layer normalization after it, in one pass over the tokens.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

namespace dynvit {

struct NormedResidual {
    at::Tensor sum;     ///< x + scale * branch, like x: the residual stream after the branch
    at::Tensor normed;  ///< LayerNorm(sum), of x's shape in the type asked for: what the next branch reads
};

/// Adds a branch to the residual stream and normalizes the sum over its channels: the definition, for any device, by
/// tensor operations that autograd differentiates. Sum and statistics are computed in float32 (float64 for a float64 x)
/// and rounded to their types once. Throws c10::Error where the shapes do not fit each other.
/// @param x (B, n, C), or packed rows (T, C) without a scale; float32, float16 or bfloat16 (float64 in tests)
/// @param branch like x, of x's type or a smaller one, as autocast makes it; undefined: `sum` is x itself
/// @param scale (B, 1, 1), a factor for each image's branch (drop path); undefined: 1. It has no gradient.
/// @param weight, bias (C)
/// @param epsilon added to the variance
/// @param output type of `normed`
NormedResidual residual_norm_plain(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& scale,
                                   const at::Tensor& weight, const at::Tensor& bias, double epsilon,
                                   at::ScalarType output);

/// Computes the same values and gradients, by one kernel each way on a GPU that the CUDA kernels were built for, where
/// why_no_norm_kernel() gives no reason, `branch` has x's type, or a half type where x is float32, and weight and bias
/// are float32 or of x's type; by the definition elsewhere. The kernels sum the gradients of weight and bias in a fixed
/// order, so that equal inputs give equal results.
NormedResidual residual_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& scale,
                             const at::Tensor& weight, const at::Tensor& bias, double epsilon, at::ScalarType output);

}  // namespace dynvit
