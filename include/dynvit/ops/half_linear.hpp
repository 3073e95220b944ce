// Linear layers in mixed-precision training.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit {

/// Computes at::linear. Under autocast on a GPU that the CUDA kernels were built for, where why_no_linear_kernel()
/// gives no reason, the bias is added and its gradient summed inside the products, and the weight's gradient is
/// float32.
/// @param x (..., in), weight (out, in), bias (out) or undefined
/// @return x W^T + b, (..., out), in the type that at::linear returns
at::Tensor half_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

/// Computes at::linear(gelu(at::linear(x))), with the exact (erf) GELU. Where the kernels of half_linear() serve both
/// layers, GELU is its tanh approximation, which differs by less than half types can tell; the first product computes
/// it, and the backward pass computes GELU's output again in place of keeping it.
/// @param x (..., in), weight1 (hidden, in), bias1 (hidden), weight2 (out, hidden), bias2 (out); a bias may be
/// undefined
/// @return (..., out)
at::Tensor half_mlp(const at::Tensor& x, const at::Tensor& weight1, const at::Tensor& bias1, const at::Tensor& weight2,
                    const at::Tensor& bias2);

}  // namespace dynvit
