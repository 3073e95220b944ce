// Launcher of the kernel of ops/patch_rows.hpp.
#pragma once

#include <cuda_runtime_api.h>

#include "element_type.hpp"

namespace dynvit::cuda {

/// What pixels the images have.
enum class Pixel { kByte, kFloat, kHalf, kBFloat16 };

/// P: the patch size, which divides height and width.
struct PatchShape {
    int batch, height, width, patch;
};

/// images (B, 3, H, W), contiguous and 16 bytes aligned, -> rows (B, H/P W/P, 3 P P and zeros up to a multiple of 8) of
/// `element`, kHalf or kBFloat16, each value times `scale` plus `shift` of its channel.
struct PatchScaling {
    float scale[3], shift[3];
};
cudaError_t patch_rows(Pixel pixel, Element element, PatchShape shape, const PatchScaling& scaling, const void* images,
                       void* rows, cudaStream_t stream);

}  // namespace dynvit::cuda
