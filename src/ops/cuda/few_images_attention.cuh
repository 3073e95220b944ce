// Launcher of self-attention for few images: raw device pointers, no tensors.
#pragma once

#include <cuda_runtime_api.h>

#include "element_type.hpp"

namespace dynvit::cuda {

struct FewImagesAttention {
    Element element;  // a half type
    int batch, heads, tokens, head_dim;
    float scale;
    const void* qkv;     // (batch, tokens, 3, heads, head_dim), contiguous
    const float* sizes;  // (batch, tokens): how many tokens each stands for as a key; null: one each
    void* out;           // (batch, tokens, heads, head_dim)
};

/// Whether the kernel takes such heads on the current device: all keys and values of one in shared memory.
bool few_images_attention_fits(int tokens, int head_dim);
cudaError_t few_images_attention(const FewImagesAttention& arguments, cudaStream_t stream);

}  // namespace dynvit::cuda
