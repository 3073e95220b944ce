#include "dynvit/ops/gpu_kernels.hpp"

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/compute_capability.hpp"
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

}  // namespace dynvit
