// Whether a device runs dynvit's own kernels.
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace dynvit {

/// Why a GPU runs LibTorch's kernels in place of dynvit's: this build has none, or the GPU is too old for them. Empty
/// where dynvit's serve, and for a processor. Either way everything works; the difference is speed.
std::string why_no_gpu_kernels(const at::Device& device);

/// Why a device does not multiply in float8: it is no GPU of compute capability 9.0, or the one above. Empty where it
/// does.
std::string why_no_float8(const at::Device& device);

}  // namespace dynvit
