// Pictures as rows of patches: what a patch embedding multiplies.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>

namespace dynvit {

/// What each pixel's value becomes: value * scale + shift of its channel.
struct PixelScaling {
    std::array<float, 3> scale = {1, 1, 1}, shift = {0, 0, 0};
};

/// Each patch's pixels in the order of a convolution's weight: (B, 3, H, W) -> (B, H/P W/P, 3 P P).
/// @param images uint8, float32, float16 or bfloat16 @param patch_size P, which divides H and W
at::Tensor patch_rows_plain(const at::Tensor& images, std::int64_t patch_size, const PixelScaling& scaling,
                            at::ScalarType type);

/// The same by one kernel on a GPU that the CUDA kernels were built for (P a multiple of 8, rows of a half type).
/// @param rows where they are written, (B, H/P W/P, 3 P P), contiguous
void write_patch_rows(const at::Tensor& rows, const at::Tensor& images, std::int64_t patch_size,
                      const PixelScaling& scaling = {});

}  // namespace dynvit
