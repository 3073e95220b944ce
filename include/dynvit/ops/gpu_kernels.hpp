// Whether a device runs dynvit's own kernels.
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace dynvit {

/// Why a GPU runs LibTorch's kernels in place of dynvit's: this build has none, or the GPU is too old for them. Empty where
/// dynvit's serve, and for a processor. Either way everything works; the difference is speed.
std::string why_no_gpu_kernels(const at::Device& device);

}  // namespace dynvit
