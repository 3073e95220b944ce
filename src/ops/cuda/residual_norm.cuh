// Launchers of the residual + layer norm kernels: raw device pointers, no tensors. They are 16 bytes aligned.
#pragma once

#include <cuda_runtime_api.h>

#include "element_type.hpp"

namespace dynvit::cuda {

/// Channels that the kernels take: multiples of the first up to the second.
inline constexpr int kNormChannelStep = 8, kMaxNormChannels = 2048;

/// R rows of C values; `rows_per_image` rows share a scale.
struct ResidualNormShape {
    int rows, rows_per_image, channels;
};

/// `branch` is x's type, or any where x is float; `weight` (and bias) float or x's type; `normed` may be float8 in the
/// forward pass.
struct ResidualNormTypes {
    Element x, branch, weight, normed;
};

struct ResidualNormForward {
    const void *x, *branch;     // (R, C); branch may be null: then `sum` is not written
    const float* scale;         // one an image; may be null
    const void *weight, *bias;  // (C)
    float epsilon;
    void *sum, *normed;  // (R, C), the sum of x's type
    float2* statistics;  // (R): mean and 1 / deviation; may be null
    float* row_scales;   // (R), where `normed` is float8: what each of its rows is to be multiplied by
};

struct ResidualNormBackward {
    const void *to_normed, *to_sum;  // (R, C), the gradients, of their values' types; to_sum may be null
    const void* sum;                 // (R, C)
    const float* scale;              // one an image; may be null
    const float2* statistics;        // (R)
    const void* weight;              // (C)
    void *to_x, *to_branch;          // (R, C); each may be null
    float* partial;                  // (residual_norm_partials(), 2, C): scratch, null where the next is
    float* to_weight_and_bias;       // (2, C); may be null
};

cudaError_t residual_norm_forward(ResidualNormTypes types, ResidualNormShape shape, const ResidualNormForward& tensors,
                                  cudaStream_t stream);

cudaError_t residual_norm_backward(ResidualNormTypes types, ResidualNormShape shape,
                                   const ResidualNormBackward& tensors, cudaStream_t stream);

/// How many partial sums the current device's backward pass leaves for each channel: one a thread block.
int residual_norm_partials(ResidualNormTypes types, ResidualNormShape shape);

}  // namespace dynvit::cuda
