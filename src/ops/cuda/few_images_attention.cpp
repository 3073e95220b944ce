#include "few_images_attention.hpp"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cmath>

#include "element_type_of_tensor.hpp"
#include "few_images_attention.cuh"
#include "kernel_operands.hpp"

namespace dynvit::cuda {

at::Tensor few_images_attention(const at::Tensor& qkv, const at::Tensor& sizes, std::int64_t heads) {
    constexpr std::int64_t kQueries = 128, kBlocks = 64;  // of flash_attention's block; that fill half of a GPU
    const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), channels = qkv.size(2) / 3,
                       head_dim = channels / heads;
    if (batch * heads * ((tokens + kQueries - 1) / kQueries) >= kBlocks || !is_half_on_gpu(qkv) ||
        !qkv.is_contiguous() || !is_aligned(qkv) || qkv.numel() == 0 ||
        !few_images_attention_fits(static_cast<int>(tokens), static_cast<int>(head_dim))) {
        return {};
    }
    const c10::cuda::CUDAGuard device(qkv.device());
    at::Tensor out = at::empty({batch, tokens, channels}, qkv.options()), dense_sizes;
    if (sizes.defined()) dense_sizes = sizes.to(at::kFloat).contiguous();
    C10_CUDA_CHECK(few_images_attention({.element = element_of(qkv.scalar_type()),
                                         .batch = static_cast<int>(batch),
                                         .heads = static_cast<int>(heads),
                                         .tokens = static_cast<int>(tokens),
                                         .head_dim = static_cast<int>(head_dim),
                                         .scale = 1 / std::sqrt(static_cast<float>(head_dim)),
                                         .qkv = qkv.const_data_ptr(),
                                         .sizes = sizes.defined() ? dense_sizes.const_data_ptr<float>() : nullptr,
                                         .out = out.mutable_data_ptr()},
                                        c10::cuda::getCurrentCUDAStream()));
    return out;
}

}  // namespace dynvit::cuda
