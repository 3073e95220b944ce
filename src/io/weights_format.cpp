#include "dynvit/io/weights_format.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "dynvit/core/file_kind.hpp"
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

}  // namespace dynvit
