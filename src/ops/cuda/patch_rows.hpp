// The kernel of ops/patch_rows.hpp for tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "dynvit/ops/patch_rows.hpp"

namespace dynvit::cuda {

/// @return why the kernel does not take patches of this size, in pixels: it takes multiples of 8; empty where it does
std::string why_no_patch_rows(std::int64_t patch_size);

/// Writes each patch's pixels, scaled, as dynvit::write_patch_rows() does.
/// @param rows (B, H/P W/P, 3 P P); images (B, 3, H, W)
/// @return whether the kernel takes them; where it does not, nothing is written. It takes `rows` of a half type on a
/// GPU that the kernels were built for, contiguous, and uint8, float32, float16 or bfloat16 images on the same GPU
bool write_patch_rows(const at::Tensor& rows, const at::Tensor& images, std::int64_t patch_size,
                      const PixelScaling& scaling);

}  // namespace dynvit::cuda
