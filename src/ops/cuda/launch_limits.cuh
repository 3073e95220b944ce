// What a launch must ask the current device.
#pragma once

#include <cuda_runtime_api.h>

namespace dynvit::cuda {

inline int device_attribute(cudaDeviceAttr attribute) {
    int device = 0, value = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&value, attribute, device);
    return value;
}

/// More dynamic shared memory for a block than every kernel has.
template <class Kernel>
cudaError_t allow_shared_memory(Kernel* kernel, std::size_t bytes) {
    constexpr std::size_t kEveryKernel = 48 << 10;
    if (bytes <= kEveryKernel) return cudaSuccess;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

}  // namespace dynvit::cuda
