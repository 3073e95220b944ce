// The kernel of self-attention for few images, for tensors. See ops/self_attention.hpp.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit::cuda {

/// Attention among each image's tokens, where the images are so few that their heads do not fill a GPU otherwise.
/// @param qkv (B, n, 3 C); @param sizes (B, n), of sized_self_attention(); undefined: plain attention
/// @return (B, n, C); undefined where the images are many or the kernel does not take them: it takes a half type on a
/// GPU that the kernels were built for, contiguous, heads of a multiple of 8 up to 64 channels, and as many tokens as
/// shared memory holds
at::Tensor few_images_attention(const at::Tensor& qkv, const at::Tensor& sizes, std::int64_t heads);

}  // namespace dynvit::cuda
