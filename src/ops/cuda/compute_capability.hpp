// What the kernels need of a GPU.
#pragma once

#include <c10/core/Device.h>

namespace dynvit::cuda {

/// A GPU's compute capability, 90 for 9.0; 0 of a processor.
int compute_capability(const at::Device& device);

/// Whether a GPU has what all kernels are built for: compute capability 8.0 or newer.
bool kernels_run_on(const at::Device& device);

}  // namespace dynvit::cuda
