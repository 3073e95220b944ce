// Which kind of file weights are in.
#pragma once

#include <filesystem>
#include <string>

namespace dynvit {

enum class WeightsFormat { kSafetensors, kPth };

/// Says by its first bytes, whatever its name, what a file claims to be.
/// Throws Error("weights", path ...) that says what it is if it is neither, or that it cannot be read.
WeightsFormat weights_format(const std::filesystem::path& path);

/// Throws Error naming the path of a safetensors file that is to be written, where its ending says another format
/// (.pth, .bin, .onnx ...): readers go by it.
/// @param area what the error is filed under
void check_safetensors_ending(const std::filesystem::path& path, const std::string& area);

}  // namespace dynvit
