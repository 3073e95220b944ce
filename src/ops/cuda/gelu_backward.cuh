// Launcher of the gradient of GELU between two linear layers: raw device pointers, no tensors.
#pragma once

#include <cuda_runtime_api.h>

#include "element_type.hpp"

namespace dynvit::cuda {

/// Of (rows, columns) matrices of a half type, contiguous; columns: a multiple of 8.
struct GeluBackward {
    Element element;
    int rows, columns;
    const void* input;      // what GELU was applied to
    const void* to_output;  // the gradient of GELU's output
    void* output;           // written: GELU's output once more
    void* to_input;         // written; may be to_output
    float* partial;         // (gelu_backward_partials, columns): scratch
    float* to_input_sums;   // written, (columns): the sums of to_input over its rows, the layer before's bias gradient
};

/// Rows of the scratch on the current device.
int gelu_backward_partials(int rows, int columns);
cudaError_t gelu_backward(const GeluBackward& arguments, cudaStream_t stream);

}  // namespace dynvit::cuda
