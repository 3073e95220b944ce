#include "dynvit/runtime/device.hpp"

#include <torch/cuda.h>

#include "dynvit/core/error.hpp"

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
    const bool numbered = name.starts_with("cuda:") && name.size() > 5 && name.size() < 9 &&
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
