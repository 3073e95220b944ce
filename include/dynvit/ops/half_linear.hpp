// Linear layers in mixed-precision training.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit {

/// at::linear. Under autocast on a GPU that the CUDA kernels were built for, the bias and its gradient are computed
/// inside the products, and the weight's gradient leaves them in float32.
/// @param x (..., in), weight (out, in), bias (out) or undefined @return (..., out)
at::Tensor half_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

/// at::linear(gelu(at::linear(x))), with the exact (erf) GELU. As above; there GELU is its tanh approximation, which
/// differs by less than these types can tell, done inside the first product, and the backward pass computes its output
/// anew in place of keeping it.
/// @param x (..., in), weight1 (hidden, in), weight2 (out, hidden)
at::Tensor half_mlp(const at::Tensor& x, const at::Tensor& weight1, const at::Tensor& bias1, const at::Tensor& weight2,
                    const at::Tensor& bias2);

}  // namespace dynvit
