#include "prediction_head.hpp"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <numeric>

#include "dynvit/core/error.hpp"
#include "element_type_of_tensor.hpp"
#include "kernel_operands.hpp"
#include "prediction_head.cuh"

namespace dynvit::cuda {

std::string why_no_prediction_head(std::int64_t channels) {
    constexpr int kStep = std::lcm(kSharedStep, 4 * kDecidedStep);  // the last layer reads a quarter of the channels
    if (channels % kStep == 0) return {};
    return str("found ", channels, " channels, ours take multiples of ", kStep);
}

bool share_mean(const at::Tensor& h, const RowGroups& groups) {
    if (!is_half_on_gpu(h) || !h.is_contiguous() || h.size(-1) % kSharedStep != 0 || !is_aligned(h)) return false;
    if (h.numel() == 0) return true;
    PredictionShape shape{0, 0, static_cast<int>(groups.skipped), static_cast<int>(h.size(-1))};
    shape.sequences = static_cast<int>(groups.layout ? groups.layout->sequences() : h.size(0));
    shape.rows = static_cast<int>(groups.layout ? 0 : h.size(1));
    const int* offsets = groups.layout ? groups.layout->offsets().const_data_ptr<int>() : nullptr;
    const c10::cuda::CUDAGuard device(h.device());
    C10_CUDA_CHECK(share_mean(element_of(h.scalar_type()), shape, offsets, h.mutable_data_ptr(),
                              c10::cuda::getCurrentCUDAStream()));
    return true;
}

at::Tensor keep_log_probability(const at::Tensor& z, const at::Tensor& weight, const at::Tensor& bias) {
    if (!is_half_on_gpu(z) || !z.is_contiguous() || z.size(-1) % kDecidedStep != 0 ||
        weight.scalar_type() != z.scalar_type() || !weight.is_contiguous() || !is_aligned(z) || !is_aligned(weight)) {
        return {};
    }
    at::Tensor result = at::empty(z.sizes().slice(0, z.dim() - 1), z.options().dtype(at::kFloat));
    if (result.numel() == 0) return result;
    const c10::cuda::CUDAGuard device(z.device());
    C10_CUDA_CHECK(keep_log_probability(element_of(z.scalar_type()), static_cast<int>(result.numel()),
                                        static_cast<int>(z.size(-1)), z.const_data_ptr(), weight.const_data_ptr(),
                                        bias.const_data_ptr(), result.mutable_data_ptr<float>(),
                                        c10::cuda::getCurrentCUDAStream()));
    return result;
}

}  // namespace dynvit::cuda
