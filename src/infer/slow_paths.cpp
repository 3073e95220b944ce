#include "dynvit/infer/slow_paths.hpp"

#include "dynvit/core/error.hpp"
#include "dynvit/ops/gpu_kernels.hpp"

namespace dynvit {

std::vector<std::string> slow_paths(const ModelSettings& settings, const at::Device& device) {
    if (!device.is_cuda()) return {};
    const std::string reason = why_no_gpu_kernels(device);
    if (!reason.empty()) return {str("everything runs by LibTorch's own kernels: ", reason)};
    constexpr std::int64_t kHeadStep = 16, kWidestHead = 128, kChannelStep = 16, kPatchStep = 8;
    const std::int64_t head_dim = settings.embed_dim / settings.num_heads;
    std::vector<std::string> lines;
    if (head_dim % kHeadStep != 0 || head_dim > kWidestHead) {
        lines.push_back(str("attention runs by LibTorch's kernels: found heads of ", head_dim,
                            ", ours take multiples of ", kHeadStep, " up to ", kWidestHead));
    }
    if (settings.embed_dim % kChannelStep != 0) {
        lines.push_back(str("norms and products run by LibTorch's kernels: found embed_dim ", settings.embed_dim,
                            ", ours take multiples of ", kChannelStep));
    }
    if (settings.patch_size % kPatchStep != 0) {
        lines.push_back(str("patches are cut by LibTorch's kernels: found patch_size ", settings.patch_size,
                            ", ours take multiples of ", kPatchStep));
    }
    return lines;
}

}  // namespace dynvit
