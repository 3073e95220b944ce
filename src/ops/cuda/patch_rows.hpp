// The kernel of ops/patch_rows.hpp for tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include "dynvit/ops/patch_rows.hpp"

namespace dynvit::cuda {

/// Writes each patch's pixels, scaled, as dynvit::write_patch_rows() does.
/// @param rows (B, H/P W/P, patch_row_width(P)); images (B, 3, H, W)
/// @return whether the kernel takes them; where it does not, nothing is written. It takes `rows` of a half type on a
/// GPU that the kernels were built for, contiguous, and uint8, float32, float16 or bfloat16 images on the same GPU
bool write_patch_rows(const at::Tensor& rows, const at::Tensor& images, std::int64_t patch_size,
                      const PixelScaling& scaling);

}  // namespace dynvit::cuda
