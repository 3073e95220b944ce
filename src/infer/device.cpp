#include "dynvit/infer/device.hpp"

#include <torch/cuda.h>

#include <algorithm>

#include "dynvit/core/error.hpp"
#include "dynvit/ops/gpu_kernels.hpp"

namespace dynvit {
namespace {

struct Precision {
    const char* name;
    at::ScalarType type;
};

constexpr Precision kPrecisions[] = {{"float32", at::kFloat},
                                     {"bfloat16", at::kBFloat16},
                                     {"float16", at::kHalf},
                                     {"int8", at::kQInt8},
                                     {"float8", at::kFloat8_e4m3fn}};
constexpr std::size_t kOfTraining = 3;  // the first ones

std::vector<std::string> names_of(std::size_t count) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < count; ++i) names.emplace_back(kPrecisions[i].name);
    return names;
}

at::ScalarType parse(const std::string& name, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        if (name == kPrecisions[i].name) return kPrecisions[i].type;
    }
    throw Error("precision", "unknown precision '", name, "'; expected one of ", join(names_of(count), ", "));
}

}  // namespace

at::Device parse_device(const std::string& name) {
    if (name == "auto") return torch::cuda::is_available() ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
    if (name == "cpu") return at::kCPU;
    const bool numbered = name.rfind("cuda:", 0) == 0 && name.size() > 5 && name.size() < 9 &&
                          name.find_first_not_of("0123456789", 5) == std::string::npos;
    if (name != "cuda" && !numbered) {
        throw Error("device", "unknown device '", name, "'; expected auto, cpu, cuda, cuda:1, ...");
    }
    const int index = numbered ? std::stoi(name.substr(5)) : 0;
    const int available = torch::cuda::is_available() ? static_cast<int>(torch::cuda::device_count()) : 0;
    if (index >= available)
        throw Error("device", name, " was asked for, but LibTorch sees ", available, " CUDA devices");
    return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
}

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

at::ScalarType parse_precision(const std::string& name) {
    return parse(name, kOfTraining);
}

const std::vector<std::string>& inference_precisions() {
    static const std::vector<std::string> names = names_of(std::size(kPrecisions));
    return names;
}

at::ScalarType parse_inference_precision(const std::string& name) {
    return parse(name, std::size(kPrecisions));
}

}  // namespace dynvit
