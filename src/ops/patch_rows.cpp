#include "dynvit/ops/patch_rows.hpp"

#include <ATen/ATen.h>

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/patch_rows.hpp"
#endif

namespace dynvit {

at::Tensor patch_rows_plain(const at::Tensor& images, std::int64_t patch_size, const PixelScaling& scaling,
                            at::ScalarType type) {
    const auto channels = [&](const std::array<float, 3>& values) {
        return at::tensor(at::ArrayRef<float>(values.data(), 3)).view({1, 3, 1, 1}).to(images.device());
    };
    const std::int64_t batch = images.size(0), down = images.size(2) / patch_size, across = images.size(3) / patch_size;
    const at::Tensor pixels = images.to(at::kFloat) * channels(scaling.scale) + channels(scaling.shift);
    return pixels.view({batch, 3, down, patch_size, across, patch_size})
        .permute({0, 2, 4, 1, 3, 5})
        .reshape({batch, down * across, 3 * patch_size * patch_size})
        .to(type);
}

void write_patch_rows(const at::Tensor& rows, const at::Tensor& images, std::int64_t patch_size,
                      const PixelScaling& scaling) {
    TORCH_CHECK(images.dim() == 4 && images.size(1) == 3 && images.size(2) % patch_size == 0 &&
                    images.size(3) % patch_size == 0,
                "images must be (B, 3, H, W) of whole patches, found ", images.sizes());
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::write_patch_rows(rows, images, patch_size, scaling)) return;
#endif
    const at::Tensor pixels = patch_rows_plain(images, patch_size, scaling, rows.scalar_type());
    rows.copy_(at::constant_pad_nd(pixels, {0, rows.size(2) - pixels.size(2)}));
}

}  // namespace dynvit
