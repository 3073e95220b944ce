#include "patch_rows.hpp"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <optional>

#include "element_type_of_tensor.hpp"
#include "kernel_operands.hpp"
#include "patch_rows.cuh"

namespace dynvit::cuda {
namespace {

std::optional<Pixel> pixel_of(const at::Tensor& images) {
    switch (images.scalar_type()) {
        case at::kByte:
            return Pixel::kByte;
        case at::kFloat:
            return Pixel::kFloat;
        case at::kHalf:
            return Pixel::kHalf;
        case at::kBFloat16:
            return Pixel::kBFloat16;
        default:
            return std::nullopt;
    }
}

}  // namespace

bool write_patch_rows(const at::Tensor& rows, const at::Tensor& images, std::int64_t patch_size,
                      const PixelScaling& scaling) {
    const std::optional<Pixel> pixel = pixel_of(images);
    if (!is_half_on_gpu(rows) || !rows.is_contiguous() || images.device() != rows.device() || !pixel ||
        rows.size(-1) != patch_row_width(patch_size) || images.numel() == 0) {
        return false;
    }
    const at::Tensor dense = images.contiguous();
    if (!is_aligned(dense) || !is_aligned(rows)) return false;
    PatchScaling channels;
    for (int c = 0; c < 3; ++c) {
        channels.scale[c] = scaling.scale[static_cast<std::size_t>(c)];
        channels.shift[c] = scaling.shift[static_cast<std::size_t>(c)];
    }
    const PatchShape shape{static_cast<int>(images.size(0)), static_cast<int>(images.size(2)),
                           static_cast<int>(images.size(3)), static_cast<int>(patch_size)};
    const c10::cuda::CUDAGuard device(rows.device());
    C10_CUDA_CHECK(patch_rows(*pixel, element_of(rows.scalar_type()), shape, channels, dense.const_data_ptr(),
                              rows.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
    return true;
}

}  // namespace dynvit::cuda
