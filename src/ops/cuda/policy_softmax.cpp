#include "policy_softmax.hpp"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "compute_capability.hpp"
#include "element_type_of_tensor.hpp"
#include "policy_softmax.cuh"

namespace dynvit::cuda {
namespace {

constexpr std::int64_t kMaxTokens = 1536;  // 8 warps x N floats fit the 48 KB of shared memory that every GPU gives

PolicySoftmaxShape shape_of(const at::Tensor& logits) {
    return {static_cast<int>(logits.size(0)), static_cast<int>(logits.size(1)), static_cast<int>(logits.size(2))};
}

}  // namespace

bool policy_softmax_supports(const at::Tensor& logits) {
    const auto type = logits.scalar_type();
    return kernels_run_on(logits.device()) && (type == at::kFloat || type == at::kHalf || type == at::kBFloat16) &&
           logits.size(-1) <= kMaxTokens && logits.size(0) * logits.size(1) <= 65535;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> policy_softmax_forward(const at::Tensor& logits,
                                                                      const at::Tensor& policy) {
    const c10::cuda::CUDAGuard device(logits.device());
    const at::Tensor dense = logits.contiguous(), visible = policy.to(at::kFloat).contiguous();
    at::Tensor probabilities = at::empty_like(dense);
    at::Tensor row_max = at::empty({dense.size(0), dense.size(1), dense.size(2), 1}, visible.options());
    at::Tensor row_sum = at::empty_like(row_max);
    C10_CUDA_CHECK(policy_softmax_forward(element_of(dense.scalar_type()), shape_of(dense), dense.const_data_ptr(),
                                          visible.const_data_ptr<float>(), probabilities.mutable_data_ptr(),
                                          row_max.mutable_data_ptr<float>(), row_sum.mutable_data_ptr<float>(),
                                          c10::cuda::getCurrentCUDAStream()));
    return {probabilities, row_max, row_sum};
}

std::tuple<at::Tensor, at::Tensor> policy_softmax_backward(const at::Tensor& to_probabilities, const at::Tensor& logits,
                                                           const at::Tensor& policy, const at::Tensor& row_max,
                                                           const at::Tensor& row_sum, bool wants_policy) {
    const c10::cuda::CUDAGuard device(logits.device());
    const at::Tensor dense = logits.contiguous(), visible = policy.to(at::kFloat).contiguous();
    const at::Tensor gradient = to_probabilities.to(dense.scalar_type()).contiguous();
    at::Tensor to_logits = at::empty_like(dense), partial;
    const std::int64_t blocks = (dense.size(2) + kRowsPerBlock - 1) / kRowsPerBlock;
    if (wants_policy) partial = at::empty({dense.size(0), dense.size(1) * blocks, dense.size(2)}, visible.options());
    C10_CUDA_CHECK(policy_softmax_backward(
        element_of(dense.scalar_type()), shape_of(dense), gradient.const_data_ptr(), dense.const_data_ptr(),
        visible.const_data_ptr<float>(), row_max.const_data_ptr<float>(), row_sum.const_data_ptr<float>(),
        to_logits.mutable_data_ptr(), wants_policy ? partial.mutable_data_ptr<float>() : nullptr,
        c10::cuda::getCurrentCUDAStream()));
    return {to_logits, wants_policy ? partial.sum(1).to(policy.scalar_type()) : at::Tensor()};
}

}  // namespace dynvit::cuda
