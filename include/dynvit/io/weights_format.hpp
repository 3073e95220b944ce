// Which kind of file weights are in.
#pragma once

#include <filesystem>

namespace dynvit {

enum class WeightsFormat { kSafetensors, kPth };

/// Says by its first bytes, whatever its name, what a file claims to be.
/// Throws Error("weights", path ...) that says what it is if it is neither, or that it cannot be read.
WeightsFormat weights_format(const std::filesystem::path& path);

}  // namespace dynvit
