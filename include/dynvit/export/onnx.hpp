// ONNX: for ONNX Runtime, TensorRT and others.
#pragma once

#include <filesystem>

#include "dynvit/export/export_options.hpp"
#include "dynvit/models/dynamic_vit.hpp"

namespace dynvit {

/// Writes a model of opset 17: input "images", its first dimension "batch"; outputs "logits" and, with kept_tokens,
/// "kept_1", "kept_2", ... The weights are initializers with the names and shapes of published checkpoints. The
/// doc string says in words how pictures are prepared, the metadata "dynvit.preprocessing" in YAML. Reads the file
/// again and runs ONNX's checker and shape inference on it.
/// @param model on the CPU, float32
/// Throws Error naming the path where it can't be written or is refused (`path` is then unchanged), and where dynvit
/// was built without libonnx.
void export_onnx(const std::filesystem::path& path, DynamicVit model, const ExportOptions& options);

}  // namespace dynvit
