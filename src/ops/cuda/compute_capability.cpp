#include "compute_capability.hpp"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>

namespace dynvit::cuda {

int compute_capability(const at::Device& device) {
    if (!device.is_cuda()) return 0;
    int major = 0, minor = 0;
    const int index = device.has_index() ? device.index() : c10::cuda::current_device();
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index));
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index));
    return 10 * major + minor;
}

bool kernels_run_on(const at::Device& device) {
    constexpr int kLeast = 80;
    return compute_capability(device) >= kLeast;
}

}  // namespace dynvit::cuda
