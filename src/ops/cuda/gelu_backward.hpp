// The gradient of GELU (its tanh approximation) between two linear layers.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit::cuda {

struct GeluGradients {
    at::Tensor output;         // GELU's output once more, (R, C)
    at::Tensor to_input;       // (R, C)
    at::Tensor to_input_sums;  // over the rows, (C), float32
};

/// @param input (R, C), what GELU was applied to; to_output (R, C), which becomes to_input. Both of a half type on a
/// GPU, contiguous; C a multiple of 8
GeluGradients gelu_backward(const at::Tensor& input, const at::Tensor& to_output);

}  // namespace dynvit::cuda
