// Kernels that begin while the one before them ends (programmatic dependent launch, compute capability 9.0). CUDA code
// only.
#pragma once

#include <cuda_runtime_api.h>

#include "launch_limits.cuh"

namespace dynvit::cuda {

/// Lets the next kernel's blocks take the room that is left, up to their wait_for_previous().
__device__ inline void let_next_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/// Until all that earlier kernels wrote is there: nothing may be read before it, nor written.
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Launches a kernel that calls wait_for_previous() before it touches what others write.
template <class... Parameters, class... Arguments>
cudaError_t launch_overlapping(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t bytes,
                               cudaStream_t stream, const Arguments&... arguments) {
    if (const cudaError_t error = allow_shared_memory(kernel, bytes); error != cudaSuccess) return error;
    cudaLaunchAttribute overlap = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = bytes;
    config.stream = stream;
    config.attrs = &overlap;
    if (device_attribute(cudaDevAttrComputeCapabilityMajor) >= 9) {
        overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        overlap.val.programmaticStreamSerializationAllowed = 1;
        config.numAttrs = 1;
    }
    return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace dynvit::cuda
