#include "dynvit/io/weights_format.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "dynvit/core/error.hpp"
#include "input_file.hpp"

namespace dynvit {

WeightsFormat weights_format(const std::filesystem::path& path) {
    InputFile file(path, "weights");
    std::array<std::uint8_t, 9> first{};
    file.read(0, first.data(), std::min<std::uint64_t>(file.bytes(), first.size()));
    // After a safetensors file's 8-byte length, which may be any, its header starts; neither a zip archive nor a pickle
    // of torch.save has '{' there.
    if (first[8] == '{') return WeightsFormat::kSafetensors;
    const bool zip = first[0] == 'P' && first[1] == 'K', pickle = first[0] == 0x80;
    if (zip || pickle) return WeightsFormat::kPth;
    file.fail("is neither a safetensors file nor a PyTorch checkpoint");
}

void check_safetensors_ending(const std::filesystem::path& path, const std::string& area) {
    constexpr std::string_view kOthers[] = {".pth", ".pt",   ".bin", ".ckpt", ".pkl", ".pickle",
                                            ".tar", ".onnx", ".npz", ".npy",  ".h5",  ".msgpack"};
    std::string ending = path.extension().string();
    std::ranges::transform(ending, ending.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (std::ranges::find(kOthers, ending) == std::end(kOthers)) return;
    throw Error(area, path.string(), ": found the ending ", ending, " for a safetensors file, expected ",
                std::filesystem::path(path).replace_extension("safetensors").string());
}

}  // namespace dynvit
