// Pictures as rows of patches: what a patch embedding multiplies.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>

namespace dynvit {

/// How pixels are scaled: each value v of a channel c becomes v * scale[c] + shift[c].
struct PixelScaling {
    std::array<float, 3> scale = {1, 1, 1}, shift = {0, 0, 0};
};

/// The width of a row that write_patch_rows() fills: 3 P P pixels, and zeros up to a multiple of 8, so that tensor
/// cores take it. @param patch_size P
inline std::int64_t patch_row_width(std::int64_t patch_size) {
    return (3 * patch_size * patch_size + 7) / 8 * 8;
}

/// Lays out each patch's scaled pixels in the order of a convolution's weight: the definition, for any device.
/// @param images (B, 3, H, W), uint8, float32, float16 or bfloat16
/// @param patch_size P, in pixels, which divides H and W
/// @param type of the result; scaling is computed in float32
/// @return (B, H/P W/P, 3 P P)
at::Tensor patch_rows_plain(const at::Tensor& images, std::int64_t patch_size, const PixelScaling& scaling,
                            at::ScalarType type);

/// Writes the same values, and zeros behind them, by one kernel on a GPU that the CUDA kernels were built for, where
/// `rows` has a half type. Throws c10::Error where the images are no (B, 3, H, W) of whole patches.
/// @param rows (B, H/P W/P, patch_row_width(P)), contiguous: what is written, in its type
void write_patch_rows(const at::Tensor& rows, const at::Tensor& images, std::int64_t patch_size,
                      const PixelScaling& scaling = {});

}  // namespace dynvit
