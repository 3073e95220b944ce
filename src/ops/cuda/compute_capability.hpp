// The generation of a GPU, and whether it is one that the kernels were built for.
#pragma once

#include <c10/core/Device.h>

namespace dynvit::cuda {

/// @return a GPU's compute capability, 90 for 9.0; 0 for a processor
int compute_capability(const at::Device& device);

/// @return whether a device is a GPU of compute capability 8.0 or newer, for which all kernels are built
bool kernels_run_on(const at::Device& device);

}  // namespace dynvit::cuda
