// Models in formats that other programs run.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "dynvit/export/export_options.hpp"
#include "dynvit/models/dynamic_vit.hpp"

namespace dynvit {

/// The formats' names: "bundle", "torchscript", "onnx".
const std::vector<std::string>& export_formats();

/// Writes the model beside `path`, checks what is written, and renames it: export_bundle, export_torchscript,
/// export_onnx. What stood
/// at `path` is unchanged where that fails.
/// @param model on the CPU, float32
/// Throws Error for another format, counts that no stage can keep, weights that are not finite, or a file that can't be
/// written or fails its check.
void export_model(const std::filesystem::path& path, DynamicVit model, const ExportOptions& options,
                  const std::string& format);

}  // namespace dynvit
