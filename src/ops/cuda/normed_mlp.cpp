#include "normed_mlp.hpp"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <limits>

#include "compute_capability.hpp"
#include "element_type_of_tensor.hpp"
#include "kernel_operands.hpp"
#include "normed_mlp.cuh"

namespace dynvit::cuda {
namespace {

// Of a round's rows, those from which the kernel is faster: a round takes 48 us on an H200, and the norm and the two
// products take as long for 8,400 of its 12,700 rows.
constexpr double kLeastShare = 0.7;

}  // namespace

bool normed_mlp_supports(const at::Device& device, at::ScalarType type, std::int64_t channels, std::int64_t hidden) {
    return compute_capability(device) == 90 && is_half(type) && channels == kNormedMlpChannels &&
           hidden == kNormedMlpHidden;
}

bool normed_mlp_pays(const at::Device& device, std::int64_t rows) {
    if (rows <= 0 || rows > std::numeric_limits<int>::max() / 2) return false;
    const c10::cuda::CUDAGuard guard(device);
    return static_cast<double>(rows) >= kLeastShare * static_cast<double>(normed_mlp_capacity(static_cast<int>(rows)));
}

at::Tensor normed_mlp(const at::Tensor& x, const NormedMlpWeights& weights) {
    TORCH_CHECK(x.size(-1) == kNormedMlpChannels && x.scalar_type() == weights.fc1_weight.scalar_type() &&
                    x.device() == weights.fc1_weight.device(),
                "expected rows as the weights are, found ", x.sizes(), ' ', x.scalar_type(), " on ", x.device());
    const c10::cuda::CUDAGuard device(x.device());
    const at::Tensor contiguous = x.contiguous(), rows = is_aligned(contiguous) ? contiguous : contiguous.clone();
    at::Tensor out = at::empty_like(rows);
    if (x.numel() == 0) return out;
    C10_CUDA_CHECK(normed_mlp({.element = element_of(x.scalar_type()),
                               .rows = static_cast<int>(x.numel() / kNormedMlpChannels),
                               .x = rows.const_data_ptr(),
                               .fc1_weight = weights.fc1_weight.const_data_ptr(),
                               .fc1_sums = weights.fc1_sums.const_data_ptr<float>(),
                               .fc1_bias = weights.fc1_bias.const_data_ptr<float>(),
                               .fc2_weight = weights.fc2_weight.const_data_ptr(),
                               .fc2_bias = weights.fc2_bias.const_data_ptr<float>(),
                               .epsilon = static_cast<float>(weights.epsilon),
                               .out = out.mutable_data_ptr()},
                              c10::cuda::getCurrentCUDAStream()));
    return out;
}

}  // namespace dynvit::cuda
