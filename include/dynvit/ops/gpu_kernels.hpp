// Whether a device runs dynvit's own kernels. Where they do not serve, everything works by LibTorch's, more slowly.
//
// Each function returns the reason why they do not serve, for somebody to read: what was found and what they take. The
// reason is empty where they serve. The kernels of a single operation take float16 and bfloat16; some of them take
// other types too, which these functions do not tell.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

namespace dynvit {

/// @return why a GPU runs LibTorch's kernels alone: this build has no others, or the GPU is too old for them; empty for
/// a processor. The functions for single operations, below, return this reason too
std::string why_no_gpu_kernels(const at::Device& device);

/// @param head_dim channels of one head
/// @return why self_attention() and masked_self_attention() do not run by the kernels; empty for a processor
std::string why_no_attention_kernel(const at::Device& device, std::int64_t head_dim);

/// @param channels of a token
/// @return why residual_norm() does not run by the kernels; empty for a processor
std::string why_no_norm_kernel(const at::Device& device, std::int64_t channels);

/// @param inputs, outputs of the layer: the sizes of its weight
/// @return why the products of InferenceLinear, half_linear() and half_mlp() do not compute what follows them; empty
/// for a processor
std::string why_no_linear_kernel(const at::Device& device, std::int64_t inputs, std::int64_t outputs);

/// @param channels of the head's input
/// @return why a PredictionHead does not run by the kernels from its first step to its last; empty for a processor
std::string why_no_prediction_kernel(const at::Device& device, std::int64_t channels);

/// @return why a device does not multiply in float8: it is a processor, or a GPU without dynvit's kernels, or one of
/// another compute capability than 9.0, or this build's cuBLASLt is too old
std::string why_no_float8(const at::Device& device);

}  // namespace dynvit
