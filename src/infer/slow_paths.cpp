#include "dynvit/infer/slow_paths.hpp"

#include "dynvit/core/error.hpp"
#include "dynvit/ops/gpu_kernels.hpp"

namespace dynvit {

std::vector<std::string> slow_paths(const ModelSettings& settings, const at::Device& device) {
    const std::string reason = why_no_gpu_kernels(device);
    if (!reason.empty()) return {str("everything runs by LibTorch's own kernels: ", reason)};
    std::vector<std::string> lines;
    const auto tell = [&](const char* what, const std::string& why) {
        if (!why.empty()) lines.push_back(str(what, " by LibTorch's kernels: ", why));
    };
    const std::int64_t channels = settings.embed_dim;
    tell("attention runs", why_no_attention_kernel(device, channels / settings.num_heads));
    tell("norms run", why_no_norm_kernel(device, channels));
    tell("products run", why_no_linear_kernel(device, channels, settings.hidden_dim()));
    if (settings.stages() > 0 && settings.predicts())
        tell("prediction modules run", why_no_prediction_kernel(device, channels));
    if (settings.qk_norm || settings.rope != "none") {
        lines.emplace_back("queries and keys are normed or turned by LibTorch's kernels: ours do neither");
    }
    if (settings.mlp == "quick_gelu" || settings.mlp == "swiglu" || settings.mlp_norm) {
        lines.push_back(str("what stands inside the MLP runs by LibTorch's kernels: found ", settings.mlp,
                            settings.mlp_norm ? " with a norm" : "", ", ours compute gelu"));
    }
    return lines;
}

}  // namespace dynvit
