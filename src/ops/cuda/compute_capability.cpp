#include "compute_capability.hpp"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>

namespace dynvit::cuda {

bool kernels_run_on(const at::Device& device) {
    constexpr int kLeastMajor = 8;
    if (!device.is_cuda()) return false;
    int major = 0;
    const int index = device.has_index() ? device.index() : c10::cuda::current_device();
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index));
    return major >= kLeastMajor;
}

}  // namespace dynvit::cuda
