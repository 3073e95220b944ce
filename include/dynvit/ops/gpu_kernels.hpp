// Whether a device runs dynvit's own kernels. Where they do not serve, everything works by LibTorch's, more slowly.
//
// Each function returns the reason why they do not serve, for somebody to read: what was found and what they take. It
// is empty where they serve, and for a processor. The kernels of a single operation take float16 and bfloat16; some of
// them other types too, which these functions do not tell.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

namespace dynvit {

/// Why a GPU runs LibTorch's kernels alone: this build has no others, or the GPU is too old for them. The functions
/// below return this reason too.
std::string why_no_gpu_kernels(const at::Device& device);

/// Why self_attention() and masked_self_attention() do not run by the kernels. @param head_dim channels of one head
std::string why_no_attention_kernel(const at::Device& device, std::int64_t head_dim);

/// Why residual_norm() does not run by the kernels. @param channels of a token
std::string why_no_norm_kernel(const at::Device& device, std::int64_t channels);

/// Why InferenceLinear, half_linear() and half_mlp() do not do what follows a product inside it.
/// @param inputs, outputs of the layer: the sizes of its weight
std::string why_no_linear_kernel(const at::Device& device, std::int64_t inputs, std::int64_t outputs);

/// Why a PredictionHead does not run all of its steps by the kernels. @param channels of its input
std::string why_no_prediction_kernel(const at::Device& device, std::int64_t channels);

/// Why write_patch_rows() does not run by the kernel. @param patch_size side of a patch, in pixels
std::string why_no_patch_kernel(const at::Device& device, std::int64_t patch_size);

/// Why a device does not multiply in float8: it is a processor, or a GPU without dynvit's kernels, or one of another
/// compute capability than 9.0, or this build's cuBLASLt is too old. Empty where it does.
std::string why_no_float8(const at::Device& device);

}  // namespace dynvit
