#include "dynvit/io/weights_format.hpp"

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "dynvit/core/error.hpp"
#include "dynvit/core/file_kind.hpp"
#include "dynvit/core/text.hpp"
#include "input_file.hpp"

namespace dynvit {

WeightsFormat weights_format(const std::filesystem::path& path) {
    InputFile file(path, "weights");
    std::vector<std::uint8_t> first(std::min<std::uint64_t>(file.bytes(), kKindBytes));
    file.read(0, first.data(), first.size());
    const FileKind kind = file_kind(first);
    switch (kind) {
        case FileKind::kSafetensors:
            return WeightsFormat::kSafetensors;
        case FileKind::kTorchZip:
        case FileKind::kZip:
        case FileKind::kPickle:
            return WeightsFormat::kPth;
        case FileKind::kUnknown:  // a damaged one, whose reader will say what is wrong
            if (first.size() > 8 && first[8] == '{') return WeightsFormat::kSafetensors;
            if (first[0] == 0x80) return WeightsFormat::kPth;
            break;
        default:
            break;
    }
    file.fail("found ", describe_file(first, file.bytes()), ", expected a safetensors file or a PyTorch checkpoint",
              advice(kind));
}

void check_safetensors_ending(const std::filesystem::path& path, const std::string& area) {
    constexpr std::string_view kOthers[] = {".pth", ".pt",   ".bin", ".ckpt", ".pkl", ".pickle",
                                            ".tar", ".onnx", ".npz", ".npy",  ".h5",  ".msgpack"};
    const std::string ending = lower_case(path.extension().string());
    if (std::ranges::find(kOthers, ending) == std::end(kOthers)) return;
    throw Error(area, path.string(), ": found the ending ", ending, " for a safetensors file, expected ",
                std::filesystem::path(path).replace_extension("safetensors").string());
}

}  // namespace dynvit
