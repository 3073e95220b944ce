// Launchers of the fused masked attention kernels: raw device pointers, no tensors. float16 or bfloat16 elements.
#pragma once

#include <cuda_runtime_api.h>

#include "element_type.hpp"

namespace dynvit::cuda {

/// Where row (b, token, head) begins, in elements: b * batch + token * token + head * head. Its head_dim elements are
/// contiguous; rows begin at multiples of 16 bytes.
struct RowStrides {
    long long batch, token, head;
};

/// head_dim: a multiple of 8, at most 128.
struct FlashShape {
    int batch, heads, tokens, head_dim;
    float scale;
};

struct FlashForward {
    Element element;
    FlashShape shape;  // packed sequences: tokens is the longest one
    const void *q, *k, *v;
    RowStrides strides;   // of all three
    const float* policy;  // (B, N), not of packed sequences; or null
    const float* sizes;   // (B, N), or (T): not beside a policy; or null
    const int*
        offsets;   // (B + 1): packed sequences, rows offsets[b] to offsets[b + 1] of (T, heads, head_dim); or null
    void* out;     // (B, N, heads, head_dim), or (T, heads, head_dim)
    float* lse;    // (B, heads, N): the rows' maximum + log(sum); may be null
    float* floor;  // (B, heads, N): what eps adds to every probability of the row; null without a policy or lse
};

struct FlashBackward {
    Element element;
    FlashShape shape;
    const void *q, *k, *v;
    RowStrides strides;
    const float *policy, *sizes;  // as in the forward pass, and so are the next three
    const void* out;
    const float *lse, *floor;
    const void* grad_out;  // (B, N, heads, head_dim)
    void *dq, *dk, *dv;
    RowStrides grad_strides;  // of all three
    float* policy_partial;    // (B, heads, N), to be summed over the heads; may be null
    float* row_dots;          // (B, heads, N): scratch
};

cudaError_t flash_forward(const FlashForward& arguments, cudaStream_t stream);
cudaError_t flash_backward(const FlashBackward& arguments, cudaStream_t stream);

}  // namespace dynvit::cuda
