// A bundle: one safetensors file that every command takes as weights, and that says how to use them.
#pragma once

#include <filesystem>

#include "dynvit/export/export_options.hpp"
#include "dynvit/models/dynamic_vit.hpp"

namespace dynvit {

/// Writes the weights with the model's settings and a BundleSettings. Reads the file again and compares what it holds.
/// Throws Error naming the path where it can't be written (`path` is then unchanged) or holds something else.
void export_bundle(const std::filesystem::path& path, DynamicVit model, const ExportOptions& options);

}  // namespace dynvit
