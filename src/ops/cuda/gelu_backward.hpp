// The gradient of GELU (its tanh approximation) between two linear layers.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit::cuda {

struct GeluGradients {
    at::Tensor output;         // (R, C): GELU's output, computed again
    at::Tensor to_input;       // (R, C): the gradient of GELU's input
    at::Tensor to_input_sums;  // (C), float32: the sums of to_input over the rows
};

/// Computes GELU's output and the gradient of its input from the gradient of its output.
/// @param input (R, C): what GELU was applied to
/// @param to_output (R, C): the gradient of GELU's output; to_input is written over it. Both are of one half type,
/// contiguous, on a GPU; C is a multiple of 8
GeluGradients gelu_backward(const at::Tensor& input, const at::Tensor& to_output);

}  // namespace dynvit::cuda
