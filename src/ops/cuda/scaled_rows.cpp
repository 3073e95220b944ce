#include "scaled_rows.hpp"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <limits>

#include "kernel_operands.hpp"
#include "matmul.hpp"
#include "scaled_rows.cuh"

namespace dynvit::cuda {

ScaledRows quantize_rows(const at::Tensor& x, bool gelu) {
    const std::int64_t channels = x.size(-1);
    if (!multiplies_float8(x.device()) || x.scalar_type() != at::kBFloat16 || x.numel() == 0 ||
        channels % kScaledChannelStep != 0 || channels > kMaxScaledChannels ||
        x.numel() / channels > std::numeric_limits<int>::max() / 2) {
        return {};
    }
    const at::Tensor dense = x.contiguous();
    if (!is_aligned(dense)) return {};
    const c10::cuda::CUDAGuard device(x.device());
    ScaledRows rows{at::empty(x.sizes(), dense.options().dtype(at::kFloat8_e4m3fn)),
                    at::empty({x.numel() / channels}, dense.options().dtype(at::kFloat))};
    C10_CUDA_CHECK(quantize_rows({.rows = static_cast<int>(rows.scales.numel()),
                                  .channels = static_cast<int>(channels),
                                  .gelu = gelu,
                                  .x = dense.const_data_ptr(),
                                  .values = rows.values.mutable_data_ptr(),
                                  .scales = rows.scales.mutable_data_ptr<float>()},
                                 c10::cuda::getCurrentCUDAStream()));
    return rows;
}

}  // namespace dynvit::cuda
