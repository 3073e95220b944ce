#include "residual_norm.hpp"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <limits>

#include "compute_capability.hpp"
#include "dynvit/core/error.hpp"
#include "element_type_of_tensor.hpp"
#include "kernel_operands.hpp"
#include "matmul.hpp"
#include "residual_norm.cuh"

namespace dynvit::cuda {
namespace {

bool is_element(at::ScalarType type) {
    return type == at::kFloat || is_half(type);
}

// The kernels read 16 bytes at a time.
at::Tensor dense(const at::Tensor& tensor) {
    const at::Tensor contiguous = tensor.contiguous();
    return is_aligned(contiguous) ? contiguous : contiguous.clone();
}

at::Tensor dense_if_defined(const at::Tensor& tensor) {
    return tensor.defined() ? dense(tensor) : tensor;
}

const void* data_or_null(const at::Tensor& tensor) {
    return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}

void* mutable_data_or_null(const at::Tensor& tensor) {
    return tensor.defined() ? tensor.mutable_data_ptr() : nullptr;
}

bool takes_channels(std::int64_t channels) {
    return channels % kNormChannelStep == 0 && channels <= kMaxNormChannels;
}

ResidualNormShape shape_of(const at::Tensor& x) {
    const std::int64_t rows = x.numel() / x.size(-1);
    return {static_cast<int>(rows), static_cast<int>(rows / x.size(0)), static_cast<int>(x.size(-1))};
}

}  // namespace

std::string why_no_residual_norm(std::int64_t channels) {
    if (takes_channels(channels)) return {};
    return str("found ", channels, " channels, ours take multiples of ", kNormChannelStep, " up to ", kMaxNormChannels);
}

bool residual_norm_supports(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& scale,
                            const at::Tensor& weight, const at::Tensor& bias, at::ScalarType output) {
    const auto there = [&](const at::Tensor& tensor) { return tensor.device() == x.device(); };
    const at::ScalarType type = x.scalar_type(), norm = weight.scalar_type();
    const std::int64_t channels = x.size(-1);
    const bool takes_branch =
        !branch.defined() ||
        (there(branch) && (branch.scalar_type() == type || (type == at::kFloat && is_half(branch.scalar_type()))));
    const bool takes_scale = !scale.defined() || (there(scale) && scale.scalar_type() == at::kFloat);
    const bool takes_output = is_element(output) || (output == at::kFloat8_e4m3fn && multiplies_float8(x.device()));
    return kernels_run_on(x.device()) && is_element(type) && takes_output && there(weight) && there(bias) &&
           takes_branch && takes_scale && (norm == at::kFloat || norm == type) && bias.scalar_type() == norm &&
           takes_channels(channels) && x.numel() > 0 &&
           x.numel() / channels <= std::numeric_limits<int>::max() / 2;  // so that a step beyond the last row fits too
}

ResidualNormResult residual_norm_forward(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& scale,
                                         const at::Tensor& weight, const at::Tensor& bias, double epsilon,
                                         at::ScalarType output, bool wants_statistics) {
    const c10::cuda::CUDAGuard device(x.device());
    const at::Tensor stream = dense(x), added = dense_if_defined(branch), scales = dense_if_defined(scale),
                     gain = dense(weight), shift = dense(bias);
    const ResidualNormShape shape = shape_of(x);
    ResidualNormResult result{x, at::empty(x.sizes(), stream.options().dtype(output)), {}, {}};
    if (branch.defined()) result.sum = at::empty(x.sizes(), stream.options());
    if (wants_statistics) result.statistics = at::empty({shape.rows, 2}, stream.options().dtype(at::kFloat));
    if (output == at::kFloat8_e4m3fn) {
        result.row_scales = at::empty({shape.rows}, stream.options().dtype(at::kFloat));
    }

    ResidualNormForward tensors{};
    tensors.x = stream.const_data_ptr();
    tensors.branch = data_or_null(added);
    tensors.scale = static_cast<const float*>(data_or_null(scales));
    tensors.weight = gain.const_data_ptr();
    tensors.bias = shift.const_data_ptr();
    tensors.epsilon = static_cast<float>(epsilon);
    if (branch.defined()) tensors.sum = result.sum.mutable_data_ptr();
    tensors.normed = result.normed.mutable_data_ptr();
    tensors.statistics = static_cast<float2*>(mutable_data_or_null(result.statistics));
    tensors.row_scales = static_cast<float*>(mutable_data_or_null(result.row_scales));
    const ResidualNormTypes types{element_of(stream.scalar_type()),
                                  element_of(branch.defined() ? branch.scalar_type() : stream.scalar_type()),
                                  element_of(gain.scalar_type()), element_of(output)};
    C10_CUDA_CHECK(residual_norm_forward(types, shape, tensors, c10::cuda::getCurrentCUDAStream()));
    return result;
}

ResidualNormGradients residual_norm_backward(const at::Tensor& to_sum, const at::Tensor& to_normed,
                                             const at::Tensor& sum, const at::Tensor& statistics,
                                             const at::Tensor& scale, const at::Tensor& weight,
                                             at::ScalarType branch_type, ResidualNormWants wants) {
    const c10::cuda::CUDAGuard device(sum.device());
    const at::Tensor to_stream = dense_if_defined(to_sum), to_norm = dense(to_normed), stream = dense(sum),
                     scales = dense_if_defined(scale), gain = dense(weight);
    const ResidualNormShape shape = shape_of(sum);
    const ResidualNormTypes types{element_of(stream.scalar_type()), element_of(branch_type),
                                  element_of(gain.scalar_type()), element_of(to_norm.scalar_type())};
    // Without a scale the branch's gradient is x's, in its own type.
    const bool same = wants.branch && !scale.defined() && branch_type == sum.scalar_type();
    ResidualNormGradients gradients;
    at::Tensor partial, to_weight_and_bias;
    if (wants.x || same) gradients.x = at::empty_like(stream);
    if (wants.branch && !same) gradients.branch = at::empty(sum.sizes(), stream.options().dtype(branch_type));
    if (wants.weight) {
        partial = at::empty({residual_norm_partials(types, shape), 2, shape.channels}, statistics.options());
        to_weight_and_bias = at::empty({2, shape.channels}, statistics.options());
        gradients.weight = to_weight_and_bias[0];
        gradients.bias = to_weight_and_bias[1];
    }

    ResidualNormBackward tensors{};
    tensors.to_normed = to_norm.const_data_ptr();
    tensors.to_sum = data_or_null(to_stream);
    tensors.sum = stream.const_data_ptr();
    tensors.scale = static_cast<const float*>(data_or_null(scales));
    tensors.statistics = static_cast<const float2*>(statistics.const_data_ptr());
    tensors.weight = gain.const_data_ptr();
    tensors.to_x = mutable_data_or_null(gradients.x);
    tensors.to_branch = mutable_data_or_null(gradients.branch);
    tensors.partial = static_cast<float*>(mutable_data_or_null(partial));
    tensors.to_weight_and_bias = static_cast<float*>(mutable_data_or_null(to_weight_and_bias));
    C10_CUDA_CHECK(residual_norm_backward(types, shape, tensors, c10::cuda::getCurrentCUDAStream()));
    if (same) gradients.branch = gradients.x;
    return gradients;
}

}  // namespace dynvit::cuda
