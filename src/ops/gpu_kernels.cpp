#include "dynvit/ops/gpu_kernels.hpp"

#include "dynvit/core/error.hpp"

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/compute_capability.hpp"
#include "cuda/matmul.hpp"
#endif

namespace dynvit {

std::string why_no_gpu_kernels(const at::Device& device) {
    if (!device.is_cuda()) return {};
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::kernels_run_on(device)) return {};
    return "this GPU is older than compute capability 8.0";
#else
    return "this build has no CUDA kernels (the CMake preset cuda makes them)";
#endif
}

std::string why_no_float8(const at::Device& device) {
    if (!device.is_cuda()) return "this is a processor";
    std::string reason = why_no_gpu_kernels(device);
#ifdef DYNVIT_CUDA_KERNELS
    if (reason.empty() && !cuda::multiplies_float8(device)) {
        const int found = cuda::compute_capability(device);
        reason = str("found ", found / 10, '.', found % 10, ", or this build's cuBLASLt is older than 12.9");
    }
#endif
    return reason;
}

}  // namespace dynvit
