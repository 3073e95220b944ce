// Launchers of the policy softmax kernels: raw device pointers, no tensors.
#pragma once

#include <cuda_runtime_api.h>

#include "element_type.hpp"

namespace dynvit::cuda {

struct PolicySoftmaxShape {
    int batch, heads, tokens;
};

/// Rows that one thread block works through: the policy's gradient leaves as one partial sum a block.
inline constexpr int kRowsPerBlock = 32;

/// logits, probabilities: (B, h, N, N) of `element`; policy (B, N), row_max, row_sum (B, h, N): float.
cudaError_t policy_softmax_forward(Element element, PolicySoftmaxShape shape, const void* logits, const float* policy,
                                   void* probabilities, float* row_max, float* row_sum, cudaStream_t stream);

/// policy_partial: (B, h, ceil(N / kRowsPerBlock), N) float, to be summed over the middle two; may be null.
cudaError_t policy_softmax_backward(Element element, PolicySoftmaxShape shape, const void* to_probabilities,
                                    const void* logits, const float* policy, const float* row_max, const float* row_sum,
                                    void* to_logits, float* policy_partial, cudaStream_t stream);

}  // namespace dynvit::cuda
