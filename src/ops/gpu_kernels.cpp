#include "dynvit/ops/gpu_kernels.hpp"

#include "dynvit/core/error.hpp"

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/compute_capability.hpp"
#include "cuda/flash_attention.hpp"
#include "cuda/matmul.hpp"
#include "cuda/prediction_head.hpp"
#include "cuda/residual_norm.hpp"
#endif

namespace dynvit {

#ifdef DYNVIT_CUDA_KERNELS
namespace {

// Why this device runs no kernels at all, or else what `ask` returns: why it does not run those of one operation.
template <class Ask>
std::string first_reason(const at::Device& device, const Ask& ask) {
    if (!device.is_cuda()) return {};
    std::string reason = why_no_gpu_kernels(device);
    return reason.empty() ? ask() : reason;
}

}  // namespace

std::string why_no_gpu_kernels(const at::Device& device) {
    if (!device.is_cuda() || cuda::kernels_run_on(device)) return {};
    return "this GPU is older than compute capability 8.0";
}

std::string why_no_attention_kernel(const at::Device& device, std::int64_t head_dim) {
    return first_reason(device, [&] { return cuda::why_no_flash_attention(device, head_dim); });
}

std::string why_no_norm_kernel(const at::Device& device, std::int64_t channels) {
    return first_reason(device, [&] { return cuda::why_no_residual_norm(channels); });
}

std::string why_no_linear_kernel(const at::Device& device, std::int64_t inputs, std::int64_t outputs) {
    return first_reason(device, [&] { return cuda::why_no_matmul(inputs, outputs); });
}

std::string why_no_prediction_kernel(const at::Device& device, std::int64_t channels) {
    return first_reason(device, [&] { return cuda::why_no_prediction_head(channels); });
}
#else
std::string why_no_gpu_kernels(const at::Device& device) {
    if (!device.is_cuda()) return {};
    return "this build has no CUDA kernels (the CMake preset cuda makes them)";
}

std::string why_no_attention_kernel(const at::Device& device, std::int64_t) {
    return why_no_gpu_kernels(device);
}
std::string why_no_norm_kernel(const at::Device& device, std::int64_t) {
    return why_no_gpu_kernels(device);
}
std::string why_no_linear_kernel(const at::Device& device, std::int64_t, std::int64_t) {
    return why_no_gpu_kernels(device);
}
std::string why_no_prediction_kernel(const at::Device& device, std::int64_t) {
    return why_no_gpu_kernels(device);
}
#endif

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
